"""The best point for one goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from disagfusion.scheduling.solver.body import Body, Charges, units
from disagfusion.scheduling.solver.lattice import Basis, Reduction, Vector, unit_basis
from disagfusion.scheduling.solver.program import (
    Bounds,
    Case,
    Goal,
    Highest,
    Point,
    Program,
    Row,
    dot,
)
from disagfusion.scheduling.solver.relaxation import Relaxation, Relaxed
from disagfusion.scheduling.solver.search import Found, Search
from disagfusion.scheduling.solver.start import rounded

_FEW = 12
"""Boxes along the variables before a reduced basis is worth its price."""


class _Root:
    """The relaxation along the variables, before any branching."""

    def __init__(self, program: Program, goal: Goal, known: Sequence[Charges]) -> None:
        self._program = program
        self._goal = goal
        self._rows = [*goal.rows, *(row.coefficients for row in program.rows)]
        self._known = known
        basis = unit_basis(self._rows, len(program.lower))
        self.relaxation = Relaxation(program, goal, basis, units(self._rows))

    @cached_property
    def _body(self) -> Body:
        return Body(self._program, self._goal, self._known)

    @cached_property
    def relaxed(self) -> Relaxed:
        """The relaxation of everything."""
        self.relaxation.choose({})
        self.relaxation.set_demand(self.relaxation.demand(None))
        return self.relaxation.solve(*self.relaxation.box)

    @cached_property
    def bound(self) -> int:
        """Than which no point's value is better."""
        highest = isinstance(self._goal, Highest)
        anything: list[Bounds] = [(0, None) if highest else (None, 0)] * len(self._goal.rows)
        prover, box = self.relaxation.prover, self.relaxation.box
        proof = prover.prove(prover.multipliers(self.relaxed.duals), box, {}, anything)
        weight = sum(proof.goal)
        if not weight:
            # The relaxation was of no help; what the variables' bounds allow is true as well.
            upper = self._program.upper
            return min(dot(row, upper) for row in self._goal.rows) if highest else 0
        return proof.gap // weight if weight > 0 else -(proof.gap // -weight)

    def charges(self, value: int | None) -> Charges:
        """Return what points that are as good as a value have to pay."""
        duals = np.array([*self.relaxed.duals, *self.relaxed.prices])
        scales = self.relaxation.scales
        return self._body.charges(duals, scales, abs(self.bound - (value or 0)))

    def start(self, cases: Sequence[Case]) -> Point | None:
        """Return a point near the best of the relaxation, or None."""
        if not isinstance(self._goal, Highest) or self.relaxed.value is None:
            return None
        point = rounded(self._program, self._goal, self.relaxed.coordinates.tolist())
        if point is None or not cases:
            return point
        return point if any(self._program.fits(case, point) for case in cases) else None

    def basis(self, value: int | None, start: Basis | None) -> tuple[Basis, list[int]]:
        """Return a basis that fits the points better than a value, and the body's widths."""
        if start is None:
            start = unit_basis((), len(self._program.lower))
        basis = start.on(self._rows)
        exponents = self._body.exponents(self.charges(value))
        Reduction(basis, exponents, self._target()).run()
        return basis, exponents

    def _target(self) -> Vector:
        """Return what the best of the body would be like: values of all rows, then entries."""
        near = [round(value) for value in self.relaxed.coordinates.tolist()]
        goals = [self.bound] * len(self._goal.rows)
        values = []
        duals = self.relaxed.duals[len(goals) :]
        for row, dual in zip(self._program.rows, duals, strict=True):
            bound = row.lower if dual > 0 else row.upper
            values.append(bound if dual and bound is not None else dot(row.coefficients, near))
        return [*goals, *values, *near]


@dataclass(frozen=True)
class Optimum:
    """The best point for a goal.

    Attributes:
        point: None if there is none.
        value: Its value.
        proven: Whether there is no better one for certain.
        boxes: How many were looked at.
        basis: The last that was made.
        met: Points that satisfy the program and were met on the way.
    """

    point: Point | None
    value: int | None
    proven: bool
    boxes: int
    basis: Basis | None
    met: tuple[Point, ...]
    _root: _Root

    @property
    def bound(self) -> int:
        """Than which no point's value is better."""
        return self._root.bound

    @cached_property
    def charges(self) -> Charges:
        """What all points pay that are as good."""
        return self._root.charges(self.value)


def optimum(
    program: Program,
    goal: Goal,
    *,
    incumbent: Point | None = None,
    cases: Sequence[Case] = (),
    known: Sequence[Charges] = (),
    basis: Basis | None = None,
    limit: int,
) -> Optimum:
    """Return the best point.

    Args:
        program: What points must satisfy.
        goal: What is best.
        incumbent: A point that satisfies everything.
        cases: Points must satisfy one of these as well, if there are any.
        known: What all points pay that satisfy the program.
        basis: One that fitted a program like this.
        limit: How many boxes to look at.
    """
    root = _Root(program, goal, known)
    if incumbent is None:
        incumbent = root.start(cases)
    start = None if incumbent is None else (incumbent, goal.value(incumbent))
    few = min(_FEW + len(cases), limit)
    if basis and isinstance(goal, Highest):
        few = 1
    found = Search(program, goal, root.relaxation, cases, start, few).run()
    boxes, met = found.boxes, found.met
    if not found.proven and boxes < limit and root.relaxed.value is not None:
        basis, exponents = root.basis(found.value, basis)
        relaxation = Relaxation(program, goal, basis, exponents)
        found = Search(program, goal, relaxation, cases, found.best, limit - boxes).run()
        boxes, met = boxes + found.boxes, met + found.met
        if basis.apart and found.proven:
            found = _beyond(program, goal, basis, cases, found, limit)
            boxes += found.boxes
    return Optimum(found.point, found.value, found.proven, boxes, basis, met, root)


def _beyond(
    program: Program, goal: Goal, basis: Basis, cases: Sequence[Case], found: Found, limit: int
) -> Found:
    """Look where the basis does not reach: along the variables, all of this is far from good."""
    sides = basis.beyond()
    free = [Row(side.coefficients) for side in sides]
    whole = program.with_rows(*free)
    parts: list[Case] = [
        {**case, len(program.rows) + i: (side.lower, side.upper)}
        for case in cases or ({},)
        for i, side in enumerate(sides)
    ]
    rows = [*goal.rows, *(row.coefficients for row in whole.rows)]
    relaxation = Relaxation(whole, goal, unit_basis(rows, basis.size), units(rows))
    return Search(whole, goal, relaxation, parts, found.best, limit, apart=True).run()
