"""The answer by trying every plan; nothing here is shared with the planner but the documents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from disagfusion.scheduling.plan import Plan
from planningkit.cases import Case

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class _Pair:
    """A stage on a pool that all jobs fit."""

    stage: str
    pool: str
    rate: Fraction
    takes: int
    price: Fraction


@dataclass(frozen=True)
class Try:
    """One plan that keeps all limits.

    Attributes:
        numbers: Replicas.
        throughput: Jobs per second.
        enough: The same, but no more than what is asked for.
        cost: In an hour.
        accelerators: That it uses.
        moves: To get there.
        bottleneck: The first of the slowest stages.
    """

    numbers: Numbers
    throughput: Fraction
    enough: Fraction
    cost: Fraction
    accelerators: int
    moves: int
    bottleneck: str

    @property
    def rank(self) -> tuple[Fraction, Fraction, int, int]:
        """The less, the better."""
        return -self.enough, self.cost, self.accelerators, self.moves


class Everything:
    """All plans of a case."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._profile, demand = case.parsed()
        shapes = demand.shapes if demand else ()
        self._stages = list(self._profile.stages)
        self._pairs = list(self._find_pairs(shapes))
        rate = demand.rate if demand else None
        self.asked = (
            None
            if rate is None or demand is None
            else Fraction(str(rate)) * (1 + Fraction(str(demand.headroom)))
        )
        self.tries = [self._evaluate(numbers) for numbers in self._all() if self._keeps(numbers)]

    def _find_pairs(self, shapes: tuple) -> Iterator[_Pair]:  # type: ignore[type-arg]
        from disagfusion.scheduling.shapes import WeightedShape

        mix = shapes or (WeightedShape(),)
        weight = sum(Fraction(str(shape.weight)) for shape in mix)
        for stage, description in self._profile.stages.items():
            for pool, where in description.pools.items():
                has = self._profile.pools[pool].memory_gib
                if has is not None and any(where.memory_of(shape) > has for shape in mix):
                    continue
                mean = sum(
                    Fraction(str(shape.weight)) * Fraction(str(where.seconds_of(shape)))
                    for shape in mix
                )
                price = Fraction(str(self._profile.pools[pool].cost_per_hour))
                yield _Pair(
                    stage, pool, weight / mean, where.accelerators, price * where.accelerators
                )

    def _all(self) -> Iterator[Numbers]:
        """Yield all numbers that keep within the pools and the budget."""
        free = {name: pool.accelerators for name, pool in self._profile.pools.items()}
        budget = math.inf if self._case.budget is None else self._case.budget

        def extend(i: int, left: float) -> Iterator[Numbers]:
            if i == len(self._pairs):
                yield ()
                return
            pair = self._pairs[i]
            count = 0
            while count * pair.takes <= min(free[pair.pool], left):
                free[pair.pool] -= count * pair.takes
                for rest in extend(i + 1, left - count * pair.takes):
                    yield (count, *rest)
                free[pair.pool] += count * pair.takes
                count += 1

        return extend(0, budget)

    def _keeps(self, numbers: Numbers) -> bool:
        for stage, description in self._profile.stages.items():
            count = sum(
                n for n, pair in zip(numbers, self._pairs, strict=True) if pair.stage == stage
            )
            if count < description.min:
                return False
            if description.max is not None and count > description.max:
                return False
        return True

    def _evaluate(self, numbers: Numbers) -> Try:
        flows = dict.fromkeys(self._stages, Fraction(0))
        cost, accelerators = Fraction(0), 0
        for n, pair in zip(numbers, self._pairs, strict=True):
            if n:
                flows[pair.stage] += n * pair.rate
                cost += n * pair.price
                accelerators += n * pair.takes
        throughput = min(flows.values())
        return Try(
            numbers,
            throughput,
            throughput if self.asked is None else min(throughput, self.asked),
            cost,
            accelerators,
            self._moves(numbers),
            next(stage for stage in self._stages if flows[stage] == throughput),
        )

    def _moves(self, numbers: Numbers) -> int:
        if self._case.current is None:
            return 0
        running = {
            (stage, pool): count
            for stage, pools in self._case.current.items()
            for pool, count in pools.items()
        }
        moves = 0
        for n, pair in zip(numbers, self._pairs, strict=True):
            moves += abs(n - running.pop((pair.stage, pair.pool), 0))
        return moves + sum(running.values())

    def find(self, replicas: dict[str, dict[str, int]]) -> Try | None:
        """Return the try with these replicas; None if there is none that keeps all limits."""
        left = {(stage, pool) for stage, pools in replicas.items() for pool in pools}
        left -= {(pair.stage, pair.pool) for pair in self._pairs}
        numbers = tuple(replicas[pair.stage].get(pair.pool, 0) for pair in self._pairs)
        return None if left else next((one for one in self.tries if one.numbers == numbers), None)

    @property
    def best(self) -> Try | None:
        """A best plan, if there is any."""
        return min(self.tries, key=lambda one: one.rank, default=None)

    def runner_up(self, plan: Try) -> Try | None:
        """The best plan of another kind than this one."""
        if not plan.throughput:
            return None
        serving = [one for one in self.tries if one.throughput]
        other = [
            one
            for one in serving
            if one.bottleneck != plan.bottleneck
            or [n > 0 for n in one.numbers] != [n > 0 for n in plan.numbers]
        ]
        if not other:
            count = self._count(plan.bottleneck, plan)
            other = [one for one in serving if self._count(plan.bottleneck, one) != count]
        return min(other, key=lambda one: one.rank, default=None)

    def _count(self, stage: str, one: Try) -> int:
        pairs = zip(one.numbers, self._pairs, strict=True)
        return sum(n for n, pair in pairs if pair.stage == stage)


def difference(case: Case, plan: Plan | None) -> str | None:
    """Return in what the planner's answer differs from the best; None where it does not.

    Args:
        case: The problem.
        plan: The planner's answer; None if it said that there is none.
    """
    everything = Everything(case)
    best = everything.best
    if plan is None or best is None:
        return None if plan is best else f"planned {plan}, there is {best}"
    ours = everything.find(plan.replicas)
    if ours is None:
        return f"the plan does not keep all limits: {plan.replicas}"
    if ours.rank != best.rank:
        return f"planned {ours}, there is {best}"
    said = (plan.throughput, plan.cost_per_hour, plan.accelerators, plan.moves, plan.bottleneck)
    true = (
        float(ours.throughput),
        float(ours.cost),
        ours.accelerators,
        ours.moves,
        ours.bottleneck,
    )
    if said != true:
        return f"the plan says {said} of itself, it is {true}"
    if not plan.proven:
        return "the plan is not proven"
    if plan.meets_demand != (
        None if everything.asked is None else ours.throughput >= everything.asked
    ):
        return f"meets_demand is {plan.meets_demand}"
    return _different_runner_up(everything, ours, plan)


def _different_runner_up(everything: Everything, ours: Try, plan: Plan) -> str | None:
    expected = everything.runner_up(ours)
    if plan.runner_up is None or expected is None:
        same = plan.runner_up is None and expected is None
        return None if same else f"runner-up {plan.runner_up}, there is {expected}"
    second = everything.find(plan.runner_up.replicas)
    if second is None:
        return f"the runner-up does not keep all limits: {plan.runner_up.replicas}"
    if (second.enough, second.cost) != (expected.enough, expected.cost):
        return f"runner-up {second}, there is {expected}"
    if plan.runner_up.throughput != float(second.throughput):
        return f"the runner-up says {plan.runner_up.throughput}, it is {second.throughput}"
    return None
