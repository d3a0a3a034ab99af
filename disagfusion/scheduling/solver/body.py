"""How wide the body of good points is, along every row and every variable.

A relaxation's duals charge for every unit by which a point stays away from a bound. What a point
may spend is the distance between the relaxation and the incumbent, so the body is as wide as that
distance divided by the charge, or as the bounds allow. Widths are base-2 logarithms: they range
over a hundred bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disagfusion.scheduling.solver.program import Goal, Highest, Point, Program
from disagfusion.scheduling.solver.proof import Floats

_NOTHING = 1e-200
_ZERO = -300.0
_FREE = -1000.0
"""The logarithm of nothing, and that of the price of what is free."""
_NARROWEST = -80
_BITS_BELOW = 160.0
_BISECTIONS = 30


@dataclass(frozen=True)
class Charges:
    """What points must pay for a distance of one from the bounds.

    Attributes:
        rows: By a row's coefficients, base-2 logarithm.
        variables: For each variable.
        budget: What they may spend, base-2 logarithm.
    """

    rows: dict[Point, float]
    variables: Floats
    budget: float


def units(rows: Sequence[Point]) -> list[int]:
    """Return exponents of two that make all coefficients of rows at most one."""
    return [max(map(abs, row), default=0).bit_length() for row in rows]


class Body:
    """The points that are good enough to be looked at.

    Args:
        program: What they satisfy.
        goal: What is best.
        known: Charges that hold for all of them.
    """

    def __init__(self, program: Program, goal: Goal, known: Sequence[Charges] = ()) -> None:
        self._rows = [*goal.rows, *(row.coefficients for row in program.rows)]
        spans = [high - low for low, high in zip(program.lower, program.upper, strict=True)]
        reaches = [
            sum(abs(c) * span for c, span in zip(row, spans, strict=True)) for row in self._rows
        ]
        self._widths = np.array([_log2(width) for width in (*reaches, *spans)])
        for charges in known:
            prices = [charges.rows.get(row, _FREE) for row in self._rows]
            limits = charges.budget - np.array([*prices, *charges.variables])
            self._widths = np.minimum(self._widths, limits)
        self._goals = len(goal.rows)
        self._free = 1 if isinstance(goal, Highest) else 0
        steps = [math.gcd(*row) for row in self._rows]
        self._steps = np.array([_log2(step) for step in steps])
        self._bits = np.array(units(self._rows))
        self._matrix = np.array(
            [
                [c / (1 << int(bits)) for c in row]
                for row, bits in zip(self._rows, self._bits, strict=True)
            ]
        ).reshape(len(self._rows), len(spans))

    def charges(self, duals: Floats, scales: Sequence[int], budget: int) -> Charges:
        """Return what a relaxation along the variables charges.

        Args:
            duals: Of its rows and variables.
            scales: The powers of two by which they were divided; the first is the goal's.
            budget: What points may spend.
        """
        units = np.array([*scales, *[0] * (len(duals) - len(scales))])
        prices = np.log2(np.maximum(np.abs(duals), _NOTHING)) + scales[0] - units
        count = len(self._rows)
        return Charges(
            dict(zip(self._rows, prices[:count].tolist(), strict=True)),
            prices[count:],
            _log2(budget),
        )

    def exponents(self, charges: Charges) -> list[int]:
        """Return the widths of a body that holds a few points, as powers of two.

        It is the one that remains if points may spend no more than what a few of them need; at
        most the charges' budget. A basis that is good for one such body is good for others that
        are some thousand times as wide, so it need not be exact.
        """
        most, least = charges.budget, charges.budget - _BITS_BELOW
        if most > _ZERO and self._points(charges, most) > 0:
            for _ in range(_BISECTIONS):
                middle = (most + least) / 2
                if self._points(charges, middle) > 0:
                    most = middle
                else:
                    least = middle
        # Between two multiples of its step there is nothing, however little may be spent.
        most = min(max(most, float(self._steps[: self._goals].max()) - 2), charges.budget)
        widths = self._limited(charges, most)
        return [max(math.floor(width), _NARROWEST) for width in widths]

    def _limited(self, charges: Charges, budget: float) -> Floats:
        prices = [charges.rows.get(row, _FREE) for row in self._rows]
        limits: Floats = budget - np.array([*prices, *charges.variables])
        widths: Floats = np.minimum(self._widths, limits)
        return widths

    def _points(self, charges: Charges, budget: float) -> float:
        """Return about how many points there are, base-2 logarithm.

        As if every row's value were spread evenly over what the variables reach, and independent
        of the others, except that where the least of sums counts one follows from the rest.
        """
        count = len(self._rows)
        widths = self._limited(charges, budget)
        room = np.maximum(widths[count:], 0.0)
        squares = (self._matrix**2) @ (4.0 ** np.minimum(room, 60.0))
        spread = np.log2(squares + _NOTHING) / 2 + self._bits
        hit = np.maximum(widths[:count], self._steps) - spread
        return float(room.sum() + np.minimum(hit, 0.0)[self._free :].sum())


def _log2(value: int) -> float:
    return math.log2(value) if value else _ZERO
