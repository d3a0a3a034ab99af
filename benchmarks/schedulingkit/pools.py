"""What a rate of jobs costs on pools of different accelerators."""

from __future__ import annotations

from statistics import mean

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.plan import Plan
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile


def price(profile: Profile, demand: Demand) -> float | None:
    """Return the least cost of an hour at which the rate is met; None if it cannot be."""
    found = _plan(profile, demand)
    return found.cost_per_hour if found is not None and found.meets_demand else None


def only(profile: Profile, pool: str) -> Profile:
    """Return a profile in which every stage runs on one pool; others have no accelerators."""
    pools = {
        name: where if name == pool else where.model_copy(update={"accelerators": 0})
        for name, where in profile.pools.items()
    }
    return profile.model_copy(update={"pools": pools})


def price_if_alike(profile: Profile, demand: Demand) -> float | None:
    """Return the cost where all pools that a stage fits are taken for equally fast and dear.

    Who plans so asks for more and more until what he gets is enough in fact.
    """
    alike = _alike(profile)
    assert demand.rate is not None, "a rate is what is priced"
    asked = demand.rate
    while asked < 100 * demand.rate:
        found = _plan(alike, demand.model_copy(update={"rate": asked}))
        if found is None or not found.meets_demand:
            return None
        if _throughput(profile, found) >= demand.rate:
            return _cost(profile, found)
        asked *= 1.02
    return None


def _plan(profile: Profile, demand: Demand) -> Plan | None:
    try:
        return plan(profile, demand, compare=False)
    except FailedPreconditionError:
        return None


def _alike(profile: Profile) -> Profile:
    stages = {}
    for name, stage in profile.stages.items():
        seconds = round(mean(pool.seconds or 0.0 for pool in stage.pools.values()), 3)
        pools = {
            pool: what.model_copy(update={"seconds": seconds}) for pool, what in stage.pools.items()
        }
        stages[name] = stage.model_copy(update={"pools": pools})
    cost = round(mean(pool.cost_per_hour for pool in profile.pools.values()), 3)
    pools_ = {
        name: pool.model_copy(update={"cost_per_hour": cost})
        for name, pool in profile.pools.items()
    }
    return profile.model_copy(update={"stages": stages, "pools": pools_})


def _throughput(profile: Profile, found: Plan) -> float:
    return min(
        sum(
            count / (profile.stages[stage].pools[pool].seconds or 1.0)
            for pool, count in found.replicas.get(stage, {}).items()
        )
        for stage in profile.stages
    )


def _cost(profile: Profile, found: Plan) -> float:
    return sum(
        group.replicas * group.parallel_degree * profile.pools[group.pool].cost_per_hour
        for group in found.groups
    )
