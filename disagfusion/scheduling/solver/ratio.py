"""The problem: how many replicas of each stage run on each pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from disagfusion.scheduling.solver.program import Point, Program, Row, dot

if TYPE_CHECKING:
    from disagfusion.scheduling.solver.lattice import Basis


@dataclass(frozen=True)
class Ratio:
    """A ratio problem, in whole numbers.

    A variable is the number of replicas of one stage on one pool.

    Attributes:
        stages: Of each variable: its stage.
        pools: Of each variable: its pool.
        speeds: Of each variable: what one replica adds to its stage's flow.
        accelerators: Of each variable: what one replica takes.
        costs: Of each variable: what one replica costs.
        capacities: Of each pool: its accelerators.
        least: Of each stage: least number of replicas.
        most: Of each stage: greatest number of replicas; None for as many as fit.
        budget: Accelerators in all; None for as many as there are.
        target: The flow that is enough; None for as much as can be.
        current: Of each variable: replicas that run; None where moves do not count.
    """

    stages: tuple[int, ...]
    pools: tuple[int, ...]
    speeds: Point
    accelerators: Point
    costs: Point
    capacities: tuple[int, ...]
    least: tuple[int, ...]
    most: tuple[int | None, ...]
    budget: int | None = None
    target: int | None = None
    current: Point | None = None

    @cached_property
    def flows(self) -> tuple[Point, ...]:
        """For each stage what every variable adds to its flow."""
        return tuple(self._of_stage(s, self.speeds) for s in range(len(self.least)))

    def _of_stage(self, stage: int, values: Sequence[int]) -> Point:
        pairs = zip(self.stages, values, strict=True)
        return tuple(value if own == stage else 0 for own, value in pairs)

    @cached_property
    def room(self) -> int:
        """Accelerators that can be used in all."""
        whole = sum(self.capacities)
        return whole if self.budget is None else min(whole, self.budget)

    def counts(self, stage: int) -> Point:
        """Return a row that counts a stage's replicas."""
        return self._of_stage(stage, [1] * len(self.stages))

    @cached_property
    def program(self) -> Program:
        """What plans must satisfy."""
        size = len(self.stages)
        upper = []
        for j in range(size):
            fitting = min(self.capacities[self.pools[j]], self.room) // self.accelerators[j]
            most = self.most[self.stages[j]]
            upper.append(fitting if most is None else min(fitting, most))
        rows = [
            Row(self._of_pool(pool), None, capacity)
            for pool, capacity in enumerate(self.capacities)
            if pool in self.pools
        ]
        if self.budget is not None and self.budget < sum(self.capacities):
            rows.append(Row(self.accelerators, None, self.budget))
        for stage, (low, high) in enumerate(zip(self.least, self.most, strict=True)):
            if low or high is not None:
                rows.append(Row(self.counts(stage), low, high))
        return Program((0,) * size, tuple(upper), tuple(rows))

    def _of_pool(self, pool: int) -> Point:
        pairs = zip(self.pools, self.accelerators, strict=True)
        return tuple(taken if own == pool else 0 for own, taken in pairs)

    def flow(self, point: Point) -> int:
        """Return the least flow of all stages."""
        return min(dot(row, point) for row in self.flows)

    def bottleneck(self, point: Point) -> int:
        """Return the first stage with the least flow."""
        flows = [dot(row, point) for row in self.flows]
        return flows.index(min(flows))


@dataclass(frozen=True)
class Answer:
    """A plan.

    Attributes:
        point: Replicas by variable.
        proven: Whether there is no better one for certain.
        boxes: How many boxes were looked at.
        ceiling: Flow that no plan exceeds, where the plan with the highest is not certain.
        basis: One in which plans like this are found quickly.
        met: Other plans that were met on the way.
    """

    point: Point
    proven: bool = True
    boxes: int = 0
    ceiling: int | None = None
    basis: Basis | None = field(default=None, compare=False, repr=False)
    met: tuple[Point, ...] = field(default=(), compare=False, repr=False)
