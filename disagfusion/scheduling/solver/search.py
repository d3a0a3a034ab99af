"""Branch and bound over boxes of coordinates, best first.

A box is left out only if a `Proof` shows that it holds nothing better, and a box with one point is
evaluated. So what remains at the end is the best point, whatever happened in floating point on the
way.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from disagfusion.scheduling.solver.program import Case, Goal, Point, Program
from disagfusion.scheduling.solver.proof import Floats, Multipliers
from disagfusion.scheduling.solver.relaxation import Box, Relaxation, Relaxed

_WHOLE = 1e-6
_REFINEMENTS = 6
_LAST_DIGIT = 2.0**-6
_SHRINKING = 2.0**-10
_MOST_MISSES = 4
"""Points that fit no case before boxes are divided by case first and along coordinates later."""


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Attributes:
        point: The best point; None if there is none.
        value: Its value.
        proven: Whether there is no better one for certain.
        boxes: How many were looked at.
        met: Points that satisfy the program and were met on the way.
    """

    point: Point | None
    value: int | None
    proven: bool
    boxes: int
    met: tuple[Point, ...] = ()

    @property
    def best(self) -> tuple[Point, int] | None:
        """The point and its value."""
        return None if self.point is None or self.value is None else (self.point, self.value)


@dataclass(order=True)
class _Open:
    """A box that may hold something better.

    Attributes:
        value: The best that it may hold, the less the better.
        order: Of those with equal values.
        box: Its coordinates.
        case: Which of the cases holds in it.
        relaxed: What the relaxation says about it.
        fresh: Whether that is what it says about all boxes, without the case.
    """

    value: float
    order: int
    box: Box = field(compare=False)
    case: int = field(compare=False)
    relaxed: Relaxed = field(compare=False)
    fresh: bool = field(compare=False, default=False)


class Search:
    """Looks for a point that is better than the incumbent until there is none.

    Args:
        program: What points must satisfy.
        goal: What is best.
        relaxation: Of both.
        cases: Points must satisfy one of these as well, if there are any.
        incumbent: A point to begin with and its value.
        limit: How many boxes to look at.
        apart: Whether to divide by case first, not when points that fit none are met.
    """

    def __init__(
        self,
        program: Program,
        goal: Goal,
        relaxation: Relaxation,
        cases: Sequence[Case],
        incumbent: tuple[Point, int] | None,
        limit: int,
        *,
        apart: bool = False,
    ) -> None:
        self._program = program
        self._goal = goal
        self._relaxation = relaxation
        # The first of them is none: whichever it may be is still open.
        self._cases = ({}, *cases)
        pairs = [relaxation.case(case) for case in self._cases]
        self._bounds = [bounds for bounds, _ in pairs]
        self._starts = [box for _, box in pairs]
        self._best: Point | None = None
        self._value: int | None = None
        if incumbent:
            self._best, self._value = incumbent
        self._demand = relaxation.demand(self._value)
        self._limit = limit
        self._heap: list[_Open] = []
        self._boxes = 0
        self._chosen = 0
        self._misses = 0
        self._met: dict[Point, None] = {}
        self._apart = apart

    def run(self) -> Found:
        """Search until nothing better can exist, or the limit is reached."""
        self._relaxation.choose({})
        self._relaxation.set_demand(self._demand)
        if self._apart:
            self._divide_by_case()
        else:
            self._look(self._starts[0], 0)
        while self._heap and not self._goal.done(self._value):
            if self._boxes >= self._limit:
                return self._found(proven=False)
            if self._misses == _MOST_MISSES:
                self._misses += 1
                self._heap.clear()
                self._divide_by_case()
                continue
            self._expand(heapq.heappop(self._heap))
        return self._found(proven=True)

    def _found(self, *, proven: bool) -> Found:
        return Found(self._best, self._value, proven, self._boxes, tuple(self._met))

    def _divide_by_case(self) -> None:
        box = self._starts[0]
        self._spread(self._solve(box, 0), box)

    def _spread(self, relaxed: Relaxed, box: Box) -> None:
        """Divide a box by cases; what holds without them says already which are no good."""
        multipliers = self._relaxation.prover.multipliers(relaxed.duals)
        for case in range(1, len(self._cases)):
            lower = list(map(max, box[0], self._starts[case][0]))
            upper = list(map(min, box[1], self._starts[case][1]))
            if any(low > high for low, high in zip(lower, upper, strict=True)):
                continue
            excess = self._excess(multipliers, (lower, upper), case)
            value = -math.inf
            if excess is not None and relaxed.value is not None:
                value = self._relaxation.value(excess, multipliers, self._demand)
            if excess is None or excess >= 0:
                part = _Open(value, case, (lower, upper), case, relaxed, fresh=True)
                heapq.heappush(self._heap, part)

    def _excess(self, multipliers: Multipliers, box: Box, case: int) -> int | None:
        bounds = self._bounds[case]
        proof = self._relaxation.prover.prove(multipliers, box, bounds, self._demand)
        return proof.excess(self._demand)

    def _solve(self, box: Box, case: int) -> Relaxed:
        self._boxes += 1
        if case != self._chosen:
            self._chosen = case
            self._relaxation.choose(self._bounds[case])
        return self._relaxation.solve(*box)

    def _expand(self, found: _Open) -> None:
        if found.fresh:
            multipliers = self._relaxation.prover.multipliers(found.relaxed.duals)
            excess = self._excess(multipliers, found.box, found.case)
            if excess is None or excess >= 0:
                self._look(found.box, found.case)
            return
        promising = self._relaxation.promises(found.value, self._demand)
        if not promising and self._refuted(found.relaxed, found.box, found.case):
            return
        lower, upper = found.box
        k, parts = _divide(found.relaxed, found.box)
        for low, high in parts:
            box = lower.copy(), upper.copy()
            box[0][k], box[1][k] = low, high
            self._look(box, found.case)

    def _look(self, box: Box, case: int) -> None:
        relaxed = self._solve(box, case)
        value = -math.inf if relaxed.value is None else relaxed.value
        single = box[0] == box[1]
        if single or (relaxed.value is not None and _whole(relaxed.coordinates).all()):
            missed = self._try(relaxed, box, case)
            if single or self._refuted(relaxed, box, case):
                return
            if missed:
                self._misses += 1
                self._spread(relaxed, box)
                return
        elif relaxed.value is None or not self._relaxation.promises(value, self._demand):
            if self._refuted(relaxed, box, case):
                return
        # Among equals the newest comes first.
        heapq.heappush(self._heap, _Open(value, -self._boxes, box, case, relaxed))

    def _refuted(self, relaxed: Relaxed, box: Box, case: int) -> bool:
        """Whether it is proven that a box has nothing better.

        Where the relaxation's best point is the incumbent itself, the last digit decides, and
        the multipliers have to be refined.
        """
        prover = self._relaxation.prover
        multipliers, basic = prover.multipliers(relaxed.duals), relaxed.basic
        least = _LAST_DIGIT
        for _ in range(_REFINEMENTS):
            proof = prover.prove(multipliers, box, self._bounds[case], self._demand, basic)
            excess = proof.excess(self._demand)
            if excess is None or excess < 0:
                return excess is not None
            size = prover.size(excess, multipliers)
            if excess >= proof.rounding and size >= least:
                return False
            least = _SHRINKING * size
            multipliers = prover.refine(multipliers, basic)
        return False

    def _try(self, relaxed: Relaxed, box: Box, case: int) -> bool:
        """Take the relaxation's point if it is better; return whether it fits no case."""
        bounds = zip(relaxed.coordinates.tolist(), *box, strict=True)
        whole = [min(max(round(value), low), high) for value, low, high in bounds]
        point = self._relaxation.point(whole)
        if not self._program.admits(point) or not self._program.fits(self._cases[case], point):
            return False
        self._met[point] = None
        open_cases = () if case else self._cases[1:]
        if open_cases and not any(self._program.fits(one, point) for one in open_cases):
            return True
        value = self._goal.value(point)
        if self._goal.improves(value, self._value):
            self._best, self._value = point, value
            self._demand = self._relaxation.demand(value)
            self._relaxation.set_demand(self._demand)
        return False


def _whole(coordinates: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.abs(coordinates - np.round(coordinates)) < _WHOLE


def _divide(relaxed: Relaxed, box: Box) -> tuple[int, list[tuple[int, int]]]:
    """Return a coordinate and the parts that its range falls into."""
    lower, upper = box
    fractional = np.nonzero(~_whole(relaxed.coordinates))[0]
    if len(fractional):
        # The last vectors of a basis are the longest: few of their multiples cross the body.
        k = int(fractional[-1])
        below = math.floor(relaxed.coordinates[k])
        parts = [(lower[k], below), (below + 1, upper[k])]
    else:
        k = max(i for i, (low, high) in enumerate(zip(lower, upper, strict=True)) if low < high)
        at = min(max(round(float(relaxed.coordinates[k])), lower[k]), upper[k])
        parts = [(lower[k], at - 1), (at, at), (at + 1, upper[k])]
    return k, [(low, high) for low, high in parts if low <= high]
