"""How many replicas the demand needs: the cheapest exact plan, reached no faster than allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.behavior import ScaleHistory, limit
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.observation import Fresh, JobGroup, Observation, Predictor
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.predictors import ModelPredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape, WeightedShape

Histories = tuple[tuple[str, ScaleHistory], ...]
_BUSY = 0.95
_IDLE_RATE = 1e-6
_SEARCH_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Sized:
    """What the demand needs.

    Attributes:
        wanted: Place → replicas.
        histories: Stage → its history, to be kept.
        message: What it rests on.
        stabilized: Whether a window held back a change.
        rate_limited: Whether a rate did.
        refused: Stages that would be too busy with one replica less.
    """

    wanted: Mapping[Place, int]
    histories: Histories
    message: str
    stabilized: bool = False
    rate_limited: bool = False
    refused: tuple[str, ...] = ()


class Sizing:
    """Sizes a fleet by the jobs that come and those that wait.

    Args:
        profile: Stages and pools.
        budget: Accelerators in all.
        settings: Headroom, time to work off a backlog, behaviour.
    """

    def __init__(self, profile: Profile, budget: int, settings: BalancerSettings) -> None:
        self._profile = profile
        self._budget = budget
        self._settings = settings

    def size(
        self,
        observation: Observation,
        jobs: Sequence[JobGroup],
        rates: Mapping[Shape, float],
        predictor: Predictor,
        histories: Histories,
        now: float,
    ) -> Sized:
        """Return the replicas that the demand needs.

        What arrives is forecast to go on; what waits is to be worked off within `drain_seconds`.
        """
        profile = self._profile
        if isinstance(predictor, ModelPredictor):
            profile = predictor.model.to_profile()
        waiting: dict[Shape, int] = {}
        for group in jobs:
            if not group.pool:
                waiting[group.shape] = waiting.get(group.shape, 0) + group.count
        needs = {
            shape: _rounded(
                rates.get(shape, 0.0) + waiting.get(shape, 0) / self._settings.drain_seconds
            )
            for shape in (*rates, *(shape for shape in waiting if shape not in rates))
        }
        current = {
            stage: sum(one.committed for one in observation.replicas[stage].values())
            for stage in profile.stages
        }
        target = self._plan(profile, needs, observation)
        kept = dict(histories)
        limits: dict[str, int] = {}
        stabilized = rate_limited = False
        refused = []
        for stage, count in current.items():
            wanted = sum(target[stage].values())
            if wanted < count and self._too_busy(observation, stage, count):
                wanted = count
                refused.append(stage)
            history = kept.get(stage, ScaleHistory())
            history, limited = limit(history, count, wanted, self._settings.behavior, now)
            kept[stage] = history.applied(now, limited.replicas - count)
            limits[stage] = limited.replicas
            stabilized = stabilized or limited.stabilized
            rate_limited = rate_limited or limited.rate_limited
        if any(sum(target[stage].values()) != count for stage, count in limits.items()):
            target = self._plan(_bounded(profile, limits), needs, observation)
        rate = sum(needs.values())
        return Sized(
            {Place(stage, pool): n for stage, pools in target.items() for pool, n in pools.items()},
            tuple(kept.items()),
            f"{rate:.3g} jobs/s to be served",
            stabilized,
            rate_limited,
            tuple(refused),
        )

    def _plan(
        self, profile: Profile, needs: Mapping[Shape, float], observation: Observation
    ) -> Mapping[str, Mapping[str, int]]:
        rate = sum(needs.values())
        shapes = tuple(
            WeightedShape(**shape.model_dump(), weight=one) for shape, one in needs.items() if one
        )
        demand = Demand(
            shapes=shapes or (WeightedShape(),),
            rate=max(rate, _IDLE_RATE),
            headroom=self._settings.headroom,
        )
        usable = {
            pool: where.model_copy(
                update={
                    "accelerators": min(where.accelerators, observation.accelerators.get(pool, 0))
                }
            )
            for pool, where in profile.pools.items()
        }
        current = {
            stage: {pool: one.committed for pool, one in pools.items()}
            for stage, pools in observation.replicas.items()
        }
        try:
            found = plan(
                profile.model_copy(update={"pools": usable}),
                demand,
                self._budget,
                current,
                limit=_SEARCH_LIMIT,
                compare=False,
            )
        except FailedPreconditionError:
            # No plan at all, as when a pool has failed: what there is stays.
            return current
        return {stage: found.replicas.get(stage, {}) for stage in profile.stages}

    def _too_busy(self, observation: Observation, stage: str, count: int) -> bool:
        """Whether one replica less would have no time left, or nobody knows."""
        load = observation.loads[stage]
        if not isinstance(load.busy, Fresh):
            return load.reporting < count
        return count > 1 and load.busy.value * count / (count - 1) > _BUSY


def _rounded(rate: float) -> float:
    """Return a rate without the last digits: a sum's rounding must not need one more replica."""
    return float(f"{rate:.9g}")


def _bounded(profile: Profile, limits: Mapping[str, int]) -> Profile:
    """Return the profile with exactly these numbers of replicas."""
    stages = {
        stage: what.model_copy(update={"min": limits[stage], "max": limits[stage]})
        for stage, what in profile.stages.items()
    }
    return profile.model_copy(update={"stages": stages})
