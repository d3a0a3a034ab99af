"""A point to begin with: the relaxation's, rounded down and filled up again."""

from __future__ import annotations

from collections.abc import Sequence

from disagfusion.scheduling.solver.program import Highest, Point, Program, dot

_MOST_STEPS = 1000


def rounded(program: Program, goal: Highest, near: Sequence[float]) -> Point | None:
    """Return a point near another one that satisfies the program; None if none is found.

    Args:
        program: What it must satisfy.
        goal: What is best.
        near: Where the relaxation is best.
    """
    filling = _Filling(program, [int(value + 1e-6) for value in near])
    for _ in range(_MOST_STEPS):
        short = next(filter(filling.short, range(len(program.rows))), None)
        if short is not None:
            wanted = program.rows[short].coefficients
        else:
            wanted = min(goal.rows, key=filling.value)
        if not filling.add(wanted):
            break
    point = tuple(filling.point)
    return point if program.admits(point) else None


class _Filling:
    def __init__(self, program: Program, point: list[int]) -> None:
        self._program = program
        bounds = zip(program.lower, point, program.upper, strict=True)
        self.point = [min(max(low, value), high) for low, value, high in bounds]
        self._values = [dot(row.coefficients, self.point) for row in program.rows]

    def value(self, coefficients: Point) -> int:
        return dot(coefficients, self.point)

    def short(self, row: int) -> bool:
        lower = self._program.rows[row].lower
        return lower is not None and self._values[row] < lower

    def add(self, wanted: Point) -> bool:
        """Add one where it helps most."""
        order = sorted(range(len(wanted)), key=lambda j: -wanted[j])
        for j in order:
            if wanted[j] <= 0:
                return False
            if self._fits(j):
                self.point[j] += 1
                for i, row in enumerate(self._program.rows):
                    self._values[i] += row.coefficients[j]
                return True
        return False

    def _fits(self, j: int) -> bool:
        return self.point[j] < self._program.upper[j] and all(
            row.upper is None or value + row.coefficients[j] <= row.upper or not row.coefficients[j]
            for row, value in zip(self._program.rows, self._values, strict=True)
        )
