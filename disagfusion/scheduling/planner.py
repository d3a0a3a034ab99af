"""The planner: how many replicas of each stage on which pool, proven to be the best."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.conflict import find_conflict
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.explain import Allotment, why, why_not
from disagfusion.scheduling.instance import Instance, Replicas
from disagfusion.scheduling.plan import Plan, RunnerUp
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.solver import single
from disagfusion.scheduling.solver.fill import filled
from disagfusion.scheduling.solver.ratio import Answer, Ratio

DEFAULT_LIMIT = 20_000
"""Boxes for each goal; a few seconds."""
_RUNNER_UP_LIMIT = 150
"""It is there to be compared with; that none is better is not worth seconds."""


def plan(
    profile: Profile,
    demand: Demand | None = None,
    budget: int | None = None,
    current: Replicas | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    compare: bool = True,
) -> Plan:
    """Return the best plan.

    It has the highest throughput or, where the demand has a rate, the lowest cost at which rate
    and headroom are met (the highest throughput if they cannot be); of all such plans one with
    the least cost, of these one with the fewest accelerators, of these one with the fewest moves.

    Args:
        profile: Accelerators and stages.
        demand: The jobs. It may be left out if nothing in the profile depends on them.
        budget: Accelerators that may be used in all.
        current: Replicas that run, by stage and pool.
        limit: Boxes that the search looks at for each goal before it gives up.
        compare: Whether to look for a runner-up.

    Raises:
        InvalidArgumentError: A demand is needed, the budget is negative, or what runs is not in
            the profile.
        FailedPreconditionError: There is no plan (reason `NO_PLAN`).
    """
    instance = Instance(profile, demand, budget, current)
    if conflict := find_conflict(instance):
        raise FailedPreconditionError(f"there is no plan: {conflict}", reason="NO_PLAN")
    answer, other = _solve(instance.ratio, limit, compare)
    if answer is None:
        raise FailedPreconditionError(
            "there is no plan: pools, budget, minima and maxima cannot all be kept",
            reason="NO_PLAN",
        )
    best = Allotment(instance, answer)
    rival = None
    if other is not None:
        if instance.required is None:
            other = replace(other, point=filled(instance.ratio, other.point, answer.point))
        rival = Allotment(instance, other)
    return Plan(
        replicas=best.replicas,
        groups=best.groups,
        throughput=float(best.throughput),
        bottleneck=best.bottleneck,
        capacity={stage: float(flow) for stage, flow in best.capacity.items()},
        accelerators=best.accelerators,
        cost_per_hour=float(best.cost),
        moves=instance.moves(best.replicas),
        meets_demand=None if best.required is None else best.meets,
        reason=why(best),
        proven=answer.proven,
        runner_up=None
        if rival is None
        else RunnerUp(
            replicas=rival.replicas,
            throughput=float(rival.throughput),
            cost_per_hour=float(rival.cost),
            reason=why_not(rival, best),
        ),
    )


def _solve(ratio: Ratio, limit: int, compare: bool) -> tuple[Answer | None, Answer | None]:
    stages = list(range(len(ratio.least)))
    other = None
    if list(ratio.stages) == stages and len(set(ratio.pools)) == 1:
        answer = single.best(ratio)
        if answer and compare:
            other = single.runner_up(ratio, answer)
        return answer, other
    if not ratio.stages:
        return Answer(()), None
    # Who has one pool does without HiGHS.
    from disagfusion.scheduling.solver import goals

    try:
        answer = goals.best(ratio, limit)
    except goals.UnfinishedError as error:
        raise FailedPreconditionError(
            f"no plan was found in {limit:,} boxes; there may be one", reason="NO_PLAN"
        ) from error
    if answer and compare:
        with suppress(goals.UnfinishedError):
            other = goals.runner_up(ratio, answer, min(limit, _RUNNER_UP_LIMIT))
    return answer, other
