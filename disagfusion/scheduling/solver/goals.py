"""One goal after the other, and the best plan of another kind.

The goals are, each among the plans that are best for those before it: throughput (as high as can
be, or as high as is asked for), cost, accelerators, moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import gcd

from disagfusion.scheduling.solver.body import Charges
from disagfusion.scheduling.solver.lattice import Basis
from disagfusion.scheduling.solver.moves import Moves
from disagfusion.scheduling.solver.optimum import Optimum, optimum
from disagfusion.scheduling.solver.program import (
    Bounds,
    Case,
    Goal,
    Highest,
    Least,
    Point,
    Program,
    Row,
    dot,
)
from disagfusion.scheduling.solver.ratio import Answer, Ratio


class UnfinishedError(Exception):
    """The search ended at its limit before it found any plan."""


def best(ratio: Ratio, limit: int) -> Answer | None:
    """Return the best plan; None if there is none.

    Args:
        ratio: The problem.
        limit: How many boxes to look at for each goal.

    Raises:
        UnfinishedError: None was found within the limit.
    """
    return _Goals(ratio, ratio.program, (), limit).run()


class _Goals:
    def __init__(
        self,
        ratio: Ratio,
        program: Program,
        cases: Sequence[Case],
        limit: int,
        basis: Basis | None = None,
        start: Point | None = None,
        *,
        hasty: bool = False,
    ) -> None:
        self._ratio = ratio
        self._program = program
        self._cases = cases
        self._limit = limit
        self._hasty = hasty
        self._known: list[Charges] = []
        self._point = start
        self._basis = basis
        self._met: list[Point] = []
        self._proven = True
        self._boxes = 0

    def run(self) -> Answer | None:
        ratio = self._ratio
        found = self._pursue(Highest(ratio.flows, ratio.target))
        if found.value is None:
            if not found.proven:
                raise UnfinishedError
            return None
        ceiling = None if found.proven else found.bound
        wanted = found.value if ratio.target is None else min(found.value, ratio.target)
        rows = []
        for flow in ratio.flows:
            step = gcd(*flow)
            if step:
                rows.append(Row(flow, -(-wanted // step) * step))
        self._program = self._program.with_rows(*rows)
        if found.value == wanted:
            self._known.append(found.charges)
        goals = [ratio.costs, ratio.accelerators]
        if _proportional(*goals):
            goals.pop(0)
        for coefficients in goals:
            if self._over:
                break
            if any(coefficients):
                spent = self._pursue(Least(coefficients))
                self._known.append(spent.charges)
                self._program = self._program.with_rows(Row(coefficients, None, spent.value))
        if ratio.current is not None and not self._over:
            self._stay(ratio.current)
        assert self._point is not None
        return Answer(
            self._point, self._proven, self._boxes, ceiling, self._basis, tuple(self._met)
        )

    @property
    def _over(self) -> bool:
        """Whether what is found is good enough, being uncertain already."""
        return self._hasty and not self._proven

    def _pursue(self, goal: Goal) -> Optimum:
        found = optimum(
            self._program,
            goal,
            incumbent=self._point,
            cases=self._cases,
            known=self._known,
            basis=self._basis,
            limit=self._limit,
        )
        self._point = found.point
        self._basis = found.basis
        self._met += found.met
        self._proven &= found.proven
        self._boxes += found.boxes
        return found

    def _stay(self, current: Point) -> None:
        """Choose the plan that is nearest to what runs."""
        assert self._point is not None
        moves = Moves(self._program, current)
        if not moves.program.lower:
            return
        found = optimum(
            moves.program,
            Least((1,) * len(moves.program.lower)),
            incumbent=moves.of(self._point),
            cases=[moves.case(case) for case in self._cases],
            limit=self._limit,
        )
        assert found.point is not None
        self._point = moves.plan(found.point)
        self._proven &= found.proven
        self._boxes += found.boxes


def _proportional(left: Point, right: Point) -> bool:
    return all(a * right[0] == b * left[0] for a, b in zip(left, right, strict=True))


def runner_up(ratio: Ratio, answer: Answer, limit: int) -> Answer | None:
    """Return the best plan of another kind than the best one; None if there is none.

    Its bottleneck is another stage, or some stage uses other pools; where that is not possible,
    the bottleneck has another number of replicas. It serves jobs in any case.

    Raises:
        UnfinishedError: None was found within the limit.
    """
    if not ratio.flow(answer.point):
        return None
    least = tuple(max(low, 1) for low in ratio.least)
    serving = replace(ratio, least=least)
    found = None
    for program, cases in (
        _other_kind(serving, answer.point),
        _other_number(serving, answer.point),
    ):
        if cases:
            near = [*answer.met, *_neighbours(serving, answer.point)]
            start = _best_of(serving, program, cases, near)
            found = _Goals(serving, program, cases, limit, answer.basis, start, hasty=True).run()
        if found:
            break
    return found


def _neighbours(ratio: Ratio, point: Point) -> Iterator[Point]:
    """Yield plans with one replica of a kind that this one has not, in the place of another."""
    for j, number in enumerate(point):
        for i, other in enumerate(point):
            if not number and other and ratio.pools[i] == ratio.pools[j]:
                taken = -(-ratio.accelerators[j] // ratio.accelerators[i])
                changed = list(point)
                changed[j], changed[i] = 1, other - taken
                yield tuple(changed)


def _best_of(
    ratio: Ratio, program: Program, cases: Sequence[Case], points: Iterable[Point]
) -> Point | None:
    fitting = (
        point
        for point in points
        if program.admits(point) and any(program.fits(case, point) for case in cases)
    )
    return max(fitting, key=lambda point: (ratio.flow(point), point), default=None)


def _other_kind(ratio: Ratio, point: Point) -> tuple[Program, list[Case]]:
    program = ratio.program
    cases: list[Case] = []
    same: dict[int, Bounds] = {}
    for j, (value, upper) in enumerate(zip(point, program.upper, strict=True)):
        if upper:
            # Each case is apart from those before it, so that none is looked at twice.
            cases.append({**same, ~j: (None, 0) if value else (1, None)})
            same[~j] = (1, None) if value else (None, 0)
    slowest = ratio.bottleneck(point)
    first = len(program.rows)
    rows: list[Row] = []
    for stage, flow in enumerate(ratio.flows):
        if stage != slowest:
            behind = zip(ratio.flows[slowest], flow, strict=True)
            cases.append({**same, first + len(rows): (int(stage > slowest), None)})
            rows.append(Row(tuple(a - b for a, b in behind)))
    return program.with_rows(*rows), cases


def _other_number(ratio: Ratio, point: Point) -> tuple[Program, list[Case]]:
    program = ratio.program
    row = Row(ratio.counts(ratio.bottleneck(point)))
    number = dot(row.coefficients, point)
    at = len(program.rows)
    return program.with_rows(row), [{at: (None, number - 1)}, {at: (number + 1, None)}]
