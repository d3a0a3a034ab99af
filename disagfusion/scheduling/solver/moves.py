"""Starts and stops in the place of numbers of replicas.

How far a plan is from what runs is no sum of its numbers. It is one of starts and stops, of which
either is zero for each variable where there are fewest.
"""

from __future__ import annotations

from disagfusion.scheduling.solver.program import Case, Point, Program, Row, dot


class Moves:
    """A program in what is started and stopped in the place of what runs in the end."""

    def __init__(self, program: Program, current: Point) -> None:
        bounds = zip(program.lower, current, program.upper, strict=True)
        self._base = [min(max(low, value), high) for low, value, high in bounds]
        starts = [high - base for base, high in zip(self._base, program.upper, strict=True)]
        stops = [base - low for base, low in zip(self._base, program.lower, strict=True)]
        # Which variable changes, and in which direction.
        self._steps = [(j, 1) for j, room in enumerate(starts) if room]
        self._steps += [(j, -1) for j, room in enumerate(stops) if room]
        upper = [(starts if sign > 0 else stops)[j] for j, sign in self._steps]
        units = [tuple(int(i == j) for i in range(len(starts))) for j in range(len(starts))]
        self._rows = len(program.rows)
        whole = [Row(unit, 0, high) for unit, high in zip(units, program.upper, strict=True)]
        every = (*program.rows, *whole)
        self._at = [dot(row.coefficients, self._base) for row in every]
        rows = tuple(self._row(row, at) for row, at in zip(every, self._at, strict=True))
        self.program = Program((0,) * len(upper), tuple(upper), rows)

    def _row(self, row: Row, at: int) -> Row:
        return Row(
            tuple(sign * row.coefficients[j] for j, sign in self._steps),
            None if row.lower is None else row.lower - at,
            None if row.upper is None else row.upper - at,
        )

    def case(self, case: Case) -> Case:
        """Return a case's bounds for what is started and stopped."""
        found = {}
        for i, (lower, upper) in case.items():
            row = i if i >= 0 else self._rows + ~i
            at = self._at[row]
            found[row] = (
                None if lower is None else lower - at,
                None if upper is None else upper - at,
            )
        return found

    def of(self, point: Point) -> Point:
        """Return what is started and stopped for a plan."""
        change = [value - base for value, base in zip(point, self._base, strict=True)]
        return tuple(max(sign * change[j], 0) for j, sign in self._steps)

    def plan(self, moves: Point) -> Point:
        """Return the plan that comes of what is started and stopped."""
        plan = list(self._base)
        for (j, sign), count in zip(self._steps, moves, strict=True):
            plan[j] += sign * count
        return tuple(plan)
