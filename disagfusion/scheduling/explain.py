"""What a plan comes to, and why it is the best, for people."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property

from disagfusion.scheduling.conflict import listed, misfit
from disagfusion.scheduling.instance import Instance, Place, describe
from disagfusion.scheduling.plan import Group
from disagfusion.scheduling.solver.ratio import Answer


class Allotment:
    """An answer in the terms of the profile; exact.

    Args:
        instance: What was to be planned.
        answer: The numbers of replicas.
    """

    def __init__(self, instance: Instance, answer: Answer) -> None:
        self.instance = instance
        self.answer = answer
        self.used = [
            (place, count)
            for place, count in zip(instance.places, answer.point, strict=True)
            if count
        ]
        self.required = instance.required

    @cached_property
    def replicas(self) -> dict[str, dict[str, int]]:
        """Stage → pool → replicas."""
        found: dict[str, dict[str, int]] = {stage: {} for stage in self.instance.stages}
        for place, count in self.used:
            found[place.stage][place.pool] = count
        return found

    @property
    def groups(self) -> tuple[Group, ...]:
        """The replicas by what they hold."""
        return tuple(
            Group(
                stages=(place.stage,),
                pool=place.pool,
                parallel_degree=place.accelerators,
                replicas=count,
            )
            for place, count in self.used
        )

    def of(self, stage: str) -> list[tuple[Place, int]]:
        """Return where a stage's replicas are."""
        return [(place, count) for place, count in self.used if place.stage == stage]

    @cached_property
    def capacity(self) -> dict[str, Fraction]:
        """Jobs per second of each stage."""
        return {
            stage: sum((count / place.seconds for place, count in self.of(stage)), Fraction(0))
            for stage in self.instance.stages
        }

    @property
    def throughput(self) -> Fraction:
        """Jobs per second of the slowest stage."""
        return min(self.capacity.values())

    @property
    def bottleneck(self) -> str:
        """The first of the slowest stages."""
        return min(self.capacity, key=self.capacity.__getitem__)

    @property
    def accelerators(self) -> int:
        """How many are used."""
        return sum(place.accelerators * count for place, count in self.used)

    @property
    def cost(self) -> Fraction:
        """Of all of them in an hour."""
        return sum((place.cost * count for place, count in self.used), Fraction(0))

    @property
    def meets(self) -> bool:
        """Whether what is asked for is reached; true where nothing is."""
        return self.required is None or self.throughput >= self.required

    def free(self, pool: str) -> int:
        """Return how many of a pool's accelerators are not used."""
        taken = sum(place.accelerators * n for place, n in self.used if place.pool == pool)
        return self.instance.profile.pools[pool].accelerators - taken


def why(plan: Allotment) -> str:
    """Return why a plan is the best."""
    parts = [_limit(plan)]
    if plan.required is not None:
        asked = _asked(plan)
        if plan.meets:
            parts = [f"{_least(plan)} that does {asked}: {_slowest(plan)}"]
        else:
            parts.insert(0, f"{asked} cannot be reached")
    parts += _left_out(plan)
    if not plan.answer.proven:
        ended = f"not proven: the search ended after {plan.answer.boxes:,} boxes"
        if plan.answer.ceiling is not None:
            most = plan.answer.ceiling / plan.instance.unit
            ended += f", and no plan does more than {_number(most)} jobs/s"
        parts.append(ended)
    return "; ".join(parts)


def _left_out(plan: Allotment) -> list[str]:
    """Return why the slowest stage is not on other pools that it has figures for."""
    instance, stage = plan.instance, plan.bottleneck
    found = []
    for pool in instance.profile.stages[stage].pools:
        shape = instance.misfit(stage, pool)
        if shape is not None and plan.throughput:
            found.append(f"{describe(shape)} does not fit {pool}")
    return found


def why_not(rival: Allotment, best: Allotment) -> str:
    """Return why a plan lost against the best one."""
    reason = f"{_number(rival.throughput)} jobs/s, {_behind(rival, best)}: {_change(rival, best)}"
    if not rival.answer.proven:
        reason += f"; the best that was found in {rival.answer.boxes:,} boxes"
    return reason


def _number(value: Fraction | float) -> str:
    return f"{float(value):,.4g}"


def _asked(plan: Allotment) -> str:
    demand = plan.instance.demand
    assert demand.rate is not None
    extra = f" with {demand.headroom * 100:.4g} % headroom" if demand.headroom else ""
    return f"{demand.rate:g} jobs/s{extra}"


def _least(plan: Allotment) -> str:
    places = plan.instance.places
    prices = {place.cost / place.accelerators for place in places}
    if len(prices) > 1:
        return f"the cheapest plan ({_number(plan.cost)} an hour)"
    return f"the smallest plan ({plan.accelerators:,} accelerators)"


def _where(plan: Allotment, stage: str) -> str:
    """Return a stage's replicas, such as `6 replicas of 74.2 s on a10`."""
    parts = [
        f"{count:,} {'of' if i else 'replicas of' if count > 1 else 'replica of'} "
        f"{_number(place.seconds)} s"
        + (f" on {place.pool}" if len(plan.instance.pools) > 1 else "")
        for i, (place, count) in enumerate(plan.of(stage))
    ]
    return listed(parts) if parts else "no replica"


def _slowest(plan: Allotment) -> str:
    stage = plan.bottleneck
    return f"{stage} is the slowest stage with {_where(plan, stage)}"


def _limit(plan: Allotment) -> str:
    """Return what keeps the throughput from being higher."""
    instance, stage = plan.instance, plan.bottleneck
    profile = instance.profile.stages[stage]
    places = [place for place in instance.places if place.stage == stage]
    if not plan.throughput and not places:
        return f"no job can be done: {misfit(instance, stage)}"
    if sum(count for _, count in plan.of(stage)) == profile.max:
        return f"{_slowest(plan)}, which is its maximum"
    spent = plan.accelerators
    have = sum(pool.accelerators for pool in instance.profile.pools.values())
    if instance.budget is not None and instance.budget < have and spent == instance.budget:
        return f"{_slowest(plan)}, and the budget of {spent:,} accelerators is used up"
    if spent == have:
        return f"{_slowest(plan)}, and all {have:,} accelerators are used"
    if not any(plan.free(place.pool) >= place.accelerators for place in places):
        pools = listed([place.pool for place in places])
        verb = "is" if len(places) == 1 else "are"
        return f"{_slowest(plan)}, and {pools} {verb} full"
    return f"{_slowest(plan)}, and every other division leaves a slower one"


def _behind(rival: Allotment, best: Allotment) -> str:
    """Return by how much a plan is worse in the first goal in which it is."""
    if not (best.required is not None and best.meets and rival.meets):
        less = best.throughput - rival.throughput
        if less:
            return f"{_share(less / best.throughput)} less"
    if rival.cost > best.cost:
        return f"{_number(rival.cost - best.cost)} an hour more"
    extra = rival.accelerators - best.accelerators
    if extra:
        return f"{extra:,} accelerator{'s' if extra > 1 else ''} more"
    moves = [plan.instance.moves(plan.replicas) for plan in (rival, best)]
    if moves[0] > moves[1]:
        return f"{moves[0] - moves[1]:,} more to start or stop"
    return "as good"


def _share(value: Fraction) -> str:
    percent = float(value) * 100
    return f"{percent:.0f} %" if percent >= 1 else f"{percent:.1g} %"


def _change(rival: Allotment, best: Allotment) -> str:
    """Return what is different about a plan."""
    stage = rival.bottleneck
    if stage != best.bottleneck:
        return f"{stage} would be the bottleneck with {_where(rival, stage)}"
    for name in rival.instance.stages:
        ours, theirs = best.replicas[name], rival.replicas[name]
        if ours.keys() != theirs.keys():
            return f"{name} would have {_where(rival, name)}"
    return f"{stage} would have {_where(rival, stage)}"
