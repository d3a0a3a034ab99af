"""What would have to be otherwise for the exact plan to be another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.plan import Plan
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile, StagePool, StageProfile
from disagfusion.scheduling.shapes import CostModel

_LARGEST_FACTOR = 4.0
_HALVINGS = 7


@dataclass(frozen=True, slots=True)
class TurningPoint:
    """A stage's seconds at which the plan becomes another.

    Attributes:
        stage: Whose seconds.
        factor: Times what they are; found to within a percent or two.
        replicas: The plan from there on: stage → pool → replicas.
        throughput: Of that plan, jobs per second.
    """

    stage: str
    factor: float
    replicas: Mapping[str, Mapping[str, int]]
    throughput: float


def turning_points(
    profile: Profile, demand: Demand | None, budget: int | None, best: Plan
) -> list[TurningPoint]:
    """Return for each stage the nearest change of its seconds, up and down, that changes the plan.

    Stages whose seconds could be four times as many, or a quarter, are left out.

    Args:
        profile: What was planned with.
        demand: See there.
        budget: See there.
        best: The plan.
    """
    found = []
    for stage in profile.stages:
        for far in (_LARGEST_FACTOR, 1.0 / _LARGEST_FACTOR):
            point = _search(profile, demand, budget, best, stage, far)
            if point is not None:
                found.append(point)
    return found


def _search(
    profile: Profile,
    demand: Demand | None,
    budget: int | None,
    best: Plan,
    stage: str,
    far: float,
) -> TurningPoint | None:
    def other(factor: float) -> Plan | None:
        try:
            tried = plan(_scaled(profile, stage, factor), demand, budget, compare=False)
        except FailedPreconditionError:
            return None
        return None if tried.replicas == best.replicas else tried

    there = other(far)
    if there is None:
        return None
    same, changed = 1.0, far
    for _ in range(_HALVINGS):
        middle = (same * changed) ** 0.5
        tried = other(middle)
        if tried is None:
            same = middle
        else:
            changed, there = middle, tried
    return TurningPoint(stage, changed, there.replicas, there.throughput)


def _scaled(profile: Profile, stage: str, factor: float) -> Profile:
    what = profile.stages[stage]
    pools = {name: _scaled_pool(pool, factor) for name, pool in what.pools.items()}
    scaled: StageProfile = what.model_copy(update={"pools": pools})
    return profile.model_copy(update={"stages": {**profile.stages, stage: scaled}})


def _scaled_pool(pool: StagePool, factor: float) -> StagePool:
    if pool.model is None:
        assert pool.seconds is not None, "one of the two is given"
        return pool.model_copy(update={"seconds": float(f"{pool.seconds * factor:.6g}")})
    values = {
        name: float(f"{value * factor:.6g}") for name, value in pool.model.model_dump().items()
    }
    return pool.model_copy(update={"model": CostModel(**values)})
