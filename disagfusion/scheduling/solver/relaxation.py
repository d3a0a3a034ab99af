"""The linear relaxation in the coordinates of a basis.

HiGHS works in floating point and with tolerances, so nothing that it says is believed: its point
says where to look next, its duals become a `Proof` or they do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

from disagfusion.scheduling.solver.lattice import Basis
from disagfusion.scheduling.solver.program import Bounds, Case, Goal, Highest, Point, Program
from disagfusion.scheduling.solver.proof import Floats, Multipliers, Prover, scaled

Box = tuple[list[int], list[int]]
"""Least and greatest coordinates."""

_INFINITY = highspy.kHighsInf
_OPTIONS = {
    "output_flag": False,
    "threads": 1,
    "presolve": "off",
    "solver": "simplex",
    "simplex_scale_strategy": 0,
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}
_LARGE = 1 << 12
"""Rows with greater coefficients are divided by the body's width along them."""
_FAR = 1e4
"""In widths of the body."""
_CLOSE = 1e-6
_PRICED = 1e-10
_TINY = 1e-300
_CLEAR = (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kInfeasible)


@dataclass(frozen=True)
class Relaxed:
    """What the relaxation says about a box.

    Attributes:
        value: Of the objective, less being better; None where the box is said to be empty.
        coordinates: Where that is, or the middle of the box.
        duals: Of the rows.
        prices: Of the coordinates' bounds.
    """

    value: float | None
    coordinates: Floats
    duals: list[float]
    prices: list[float]

    @property
    def basic(self) -> list[int]:
        """The coordinates whose bounds have no price."""
        least = _PRICED * max(1.0, max(map(abs, self.prices)))
        return [k for k, price in enumerate(self.prices) if abs(price) <= least]


class Relaxation:
    """A linear program whose columns are the coordinates of a basis.

    Args:
        program: What points must satisfy.
        goal: What is best.
        basis: Its images are those of the goal's rows, the program's rows and the variables.
        exponents: The body's width along each of them, as a power of two.
    """

    def __init__(
        self, program: Program, goal: Goal, basis: Basis, exponents: Sequence[int]
    ) -> None:
        self._basis = basis
        self._goal = goal
        self._goals = len(goal.rows)
        self._shift = basis.image(basis.origin)
        bounds: list[Bounds] = [(None, None)] * self._goals
        bounds += [(row.lower, row.upper) for row in program.rows]
        self._rows = len(bounds)
        if not basis.along:
            bounds += zip(program.lower, program.upper, strict=True)
        self._bounds = [self._shifted(i, pair) for i, pair in enumerate(bounds)]
        images = [basis.image(vector)[: len(bounds)] for vector in basis.vectors]
        largest = [max(map(abs, row)) for row in zip(*images, strict=True)]
        self.scales = [
            max(exponent, 0) if i < self._goals or size > _LARGE else 0
            for i, (size, exponent) in enumerate(zip(largest, exponents, strict=False))
        ]
        # The goal's rows are compared with each other, so they share a unit.
        self.scales[: self._goals] = [max(self.scales[: self._goals])] * self._goals
        self._matrix = np.array([list(map(scaled, image, self.scales)) for image in images]).T
        self._matrix[:, list(basis.apart)] = 0.0
        self.box = basis.box(program.lower, program.upper)
        self._size = basis.size
        self._all = np.arange(basis.size, dtype=np.int32)
        self._changed: Case = {}
        self._base = 0.0
        self.prover = Prover(images, self._bounds, self._goals, self.scales, self._matrix)
        # Any: the package's stubs leave out what is used here.
        self._highs: Any = self._build()

    def point(self, coordinates: Sequence[int]) -> Point:
        """Return the point with these coordinates."""
        return self._basis.point(coordinates)

    def demand(self, incumbent: int | None) -> list[Bounds]:
        """Return the bounds of the goal's rows in any better point, counted from the origin."""
        return [self._shifted(i, pair) for i, pair in enumerate(self._goal.bounds(incumbent))]

    def case(self, case: Case) -> tuple[Case, Box]:
        """Return a case's bounds by row of the relaxation, and its box."""
        found = {}
        lower, upper = self.box[0].copy(), self.box[1].copy()
        for i, (low, high) in case.items():
            if i < 0 and self._basis.along:
                lower[~i] = lower[~i] if low is None else max(lower[~i], low)
                upper[~i] = upper[~i] if high is None else min(upper[~i], high)
                continue
            row = self._goals + i if i >= 0 else self._rows + ~i
            own, (least, most) = self._bounds[row], self._shifted(row, (low, high))
            found[row] = own[0] if least is None else least, own[1] if most is None else most
        return found, (lower, upper)

    def set_demand(self, demand: Sequence[Bounds]) -> None:
        """Ask for points that are better than the incumbent."""
        if not isinstance(self._goal, Highest):
            return
        origin = [scaled(self._shift[i], self.scales[i]) for i in range(self._goals)]
        bounds = [self._scaled(i, pair)[0] for i, pair in enumerate(demand)]
        if min(map(float.__add__, origin, bounds)) < min(origin) - _FAR:
            # So little is demanded that the distance would take up all digits.
            bounds = [min(origin) - value for value in origin]
        for i, bound in enumerate(bounds):
            self._highs.changeRowBounds(i, bound, _INFINITY)
        self._base = bounds[0]

    def choose(self, case: Case) -> None:
        """Put a case's bounds in the place of the last one's."""
        for i in self._changed:
            self._highs.changeRowBounds(i, *self._scaled(i, self._bounds[i]))
        for i, pair in case.items():
            self._highs.changeRowBounds(i, *self._scaled(i, pair))
        self._changed = case

    def promises(self, value: float, demand: Sequence[Bounds]) -> bool:
        """Whether a value is so good that no proof to the contrary is to be expected."""
        if isinstance(self._goal, Highest):
            limit = -self._base
        else:
            limit = self._scaled(0, demand[0])[1]
        return value < limit - _CLOSE * max(1.0, abs(limit))

    def solve(self, lower: Sequence[float], upper: Sequence[float]) -> Relaxed:
        """Solve the relaxation in a box of coordinates."""
        least, most = lower, upper
        if not self._basis.along:
            # Bounds that follow from the variables' own would only be in the way.
            own = self.box
            least = [-_INFINITY if a == b else a for a, b in zip(lower, own[0], strict=True)]
            most = [_INFINITY if a == b else a for a, b in zip(upper, own[1], strict=True)]
        highs = self._highs
        highs.changeColsBounds(self._size, self._all, np.array(least, float), np.array(most, float))
        highs.run()
        status = highs.getModelStatus()
        if status not in _CLEAR:
            # Lost in its own rounding; from the beginning it goes another way.
            highs.clearSolver()
            highs.run()
            status = highs.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            return self._optimal()
        middle = np.array([(a + b) // 2 for a, b in zip(lower, upper, strict=True)], float)
        ray = np.zeros(len(self.scales))
        if status == highspy.HighsModelStatus.kInfeasible:
            _, exists, found = highs.getDualRay()
            ray = np.array(found) if exists else ray
        # By how much the ray does not cancel, beside the numbers that should.
        left, size = np.abs(ray @ self._matrix), np.abs(ray) @ np.abs(self._matrix)
        return Relaxed(None, middle, ray.tolist(), (left / np.maximum(size, _TINY)).tolist())

    def value(self, excess: int, multipliers: Multipliers, demand: Sequence[Bounds]) -> float:
        """Return the best value that a proof leaves possible."""
        room = self.prover.size(excess, multipliers)
        lower, upper = self._scaled(0, demand[0])
        return -(lower + room) if isinstance(self._goal, Highest) else upper - room

    def _optimal(self) -> Relaxed:
        solution = self._highs.getSolution()
        value = self._highs.getObjectiveValue()
        duals = solution.row_dual
        if isinstance(self._goal, Highest):
            value -= self._base
        else:
            duals[0] = -1.0
        coordinates = np.array(solution.col_value[: self._size])
        return Relaxed(value, coordinates, duals, solution.col_dual[: self._size])

    def _shifted(self, i: int, bounds: Bounds) -> Bounds:
        lower, upper = bounds
        shift = self._shift[i]
        return None if lower is None else lower - shift, None if upper is None else upper - shift

    def _scaled(self, i: int, bounds: Bounds) -> tuple[float, float]:
        lower, upper = bounds
        return (
            -_INFINITY if lower is None else scaled(lower, self.scales[i]),
            _INFINITY if upper is None else scaled(upper, self.scales[i]),
        )

    def _build(self) -> Any:
        highest = isinstance(self._goal, Highest)
        rows, size = self._matrix.shape
        # A last column for `Highest`: by how much all goals exceed what is demanded of them.
        spare = np.zeros((rows, 1))
        spare[: self._goals] = -1.0 if highest else 0.0
        matrix = np.hstack([self._matrix, spare])
        cost = np.zeros(size + 1) if highest else matrix[0].copy()
        cost[size] = -1.0 if highest else 0.0
        limits = np.full(size + 1, _INFINITY)
        limits[size] = _INFINITY if highest else 0.0
        bounds = np.array([self._scaled(i, pair) for i, pair in enumerate(self._bounds)])
        present = matrix != 0.0
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = size + 1, rows
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, -limits, limits
        lp.row_lower_, lp.row_upper_ = bounds[:, 0].copy(), bounds[:, 1].copy()
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
        lp.a_matrix_.index_ = np.nonzero(present)[1]
        lp.a_matrix_.value_ = matrix[present]
        highs: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        for option, value in _OPTIONS.items():
            highs.setOptionValue(option, value)
        highs.passModel(lp)
        return highs
