"""What is solved: whole numbers within bounds, linear rows over them, and what is best.

Every coefficient and every bound is a Python integer, so whatever is evaluated here is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd
from operator import mul

Point = tuple[int, ...]
"""One whole number for each variable."""
Bounds = tuple[int | None, int | None]
"""Least and greatest value; None where there is none."""
Case = Mapping[int, Bounds]
"""Further bounds: of row i by i, of variable j by ~j."""


def dot(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the sum of the products."""
    return sum(map(mul, left, right))


def within(bounds: Bounds, value: int) -> bool:
    """Whether a value keeps bounds."""
    lower, upper = bounds
    return (lower is None or lower <= value) and (upper is None or value <= upper)


@dataclass(frozen=True)
class Row:
    """A sum over the variables, within bounds.

    Attributes:
        coefficients: One for each variable.
        lower: The sum is at least this.
        upper: The sum is at most this.
    """

    coefficients: Point
    lower: int | None = None
    upper: int | None = None

    def admits(self, point: Point) -> bool:
        """Whether the sum at a point is within the bounds."""
        return within((self.lower, self.upper), dot(self.coefficients, point))


@dataclass(frozen=True)
class Program:
    """Whole numbers within bounds and rows.

    Attributes:
        lower: Least value of each variable.
        upper: Greatest value of each variable.
        rows: What else holds.
    """

    lower: Point
    upper: Point
    rows: tuple[Row, ...] = ()

    def admits(self, point: Point) -> bool:
        """Whether a point satisfies everything."""
        bounds = zip(self.lower, self.upper, strict=True)
        return all(map(within, bounds, point)) and all(row.admits(point) for row in self.rows)

    def fits(self, case: Case, point: Point) -> bool:
        """Whether a point keeps the bounds of a case."""
        return all(
            within(bounds, dot(self.rows[i].coefficients, point) if i >= 0 else point[~i])
            for i, bounds in case.items()
        )

    def with_rows(self, *rows: Row) -> Program:
        """Return the program with further rows, which come last."""
        return replace(self, rows=(*self.rows, *rows))


@dataclass(frozen=True)
class Highest:
    """The least of several sums is to be as great as possible.

    Attributes:
        rows: Coefficients of the sums; none is negative, nor is any variable.
        enough: From this value on, greater is not better.
    """

    rows: tuple[Point, ...]
    enough: int | None = None

    @cached_property
    def _steps(self) -> tuple[int, ...]:
        return tuple(gcd(*row) for row in self.rows)

    def value(self, point: Point) -> int:
        """Return the least of the sums."""
        return min(dot(row, point) for row in self.rows)

    def improves(self, value: int, incumbent: int | None) -> bool:
        """Whether one value is better than another."""
        return incumbent is None or value > incumbent

    def done(self, incumbent: int | None) -> bool:
        """Whether nothing better can be wanted."""
        return incumbent is not None and self.enough is not None and incumbent >= self.enough

    def bounds(self, incumbent: int | None) -> list[Bounds]:
        """Return what each sum must satisfy in a point that is better.

        A sum of whole multiples of numbers is a multiple of their greatest common divisor, so
        "more than the incumbent" is "at least the next such multiple".
        """
        if incumbent is None:
            return [(0, None) for _ in self.rows]
        return [((incumbent // step + 1) * step if step else 1, None) for step in self._steps]


@dataclass(frozen=True)
class Least:
    """A sum is to be as small as possible.

    Attributes:
        row: Its coefficients.
    """

    row: Point

    @property
    def rows(self) -> tuple[Point, ...]:
        """The one sum."""
        return (self.row,)

    @cached_property
    def _step(self) -> int:
        return gcd(*self.row)

    def value(self, point: Point) -> int:
        """Return the sum."""
        return dot(self.row, point)

    def improves(self, value: int, incumbent: int | None) -> bool:
        """Whether one value is better than another."""
        return incumbent is None or value < incumbent

    def done(self, incumbent: int | None) -> bool:
        """Whether nothing better can be wanted."""
        return incumbent is not None and not self._step

    def bounds(self, incumbent: int | None) -> list[Bounds]:
        """Return what the sum must satisfy in a point that is better."""
        return [(None, None if incumbent is None else incumbent - self._step)]


Goal = Highest | Least
