"""How many replicas the demand needs: the cheapest exact plan, reached no faster than allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.behavior import ScaleHistory, limit
from disagfusion.scheduling.decision import Move, Place
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
        histories: Stage → its history, to be kept; see `changed`.
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
        *,
        shrinks: bool = True,
    ) -> Sized:
        """Return the replicas that the demand needs.

        What arrives is forecast to go on; what waits is to be worked off within `drain_seconds`.

        Args:
            observation: The replicas there are, and how busy they are.
            jobs: All unfinished jobs.
            rates: Jobs per second by shape.
            predictor: How long stages take.
            histories: From the last time.
            now: Seconds.
            shrinks: Whether the rates are known; if not, replicas are added at most.
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
            if wanted < count and not shrinks:
                wanted = count
            elif wanted < count and self._too_busy(observation, stage, count, any(needs.values())):
                wanted = count
                refused.append(stage)
            history = kept.get(stage, ScaleHistory())
            kept[stage], limited = limit(history, count, wanted, self._settings.behavior, now)
            limits[stage] = limited.replicas
            stabilized = stabilized or limited.stabilized
            rate_limited = rate_limited or limited.rate_limited
        if any(sum(target[stage].values()) != count for stage, count in limits.items()):
            target = self._plan(_bounded(profile, limits), needs, observation)
        if not shrinks:
            target = _grown(observation, target, limits)
        message = f"{sum(needs.values()):.3g} jobs/s to be served"
        return Sized(
            {Place(stage, pool): n for stage, pools in target.items() for pool, n in pools.items()},
            tuple(kept.items()),
            message if shrinks else f"{message} at least: how many come is not known",
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

    def _too_busy(self, observation: Observation, stage: str, count: int, demanded: bool) -> bool:
        """Whether one replica less would have no time left, or nobody knows."""
        load = observation.loads[stage]
        if not isinstance(load.busy, Fresh):
            # Without any demand there is nothing that it could be busy with.
            return demanded or load.reporting < count
        return count > 1 and load.busy.value * count / (count - 1) > _BUSY


def changed(histories: Histories, moves: Sequence[Move], now: float) -> Histories:
    """Return the histories with the changes that are made."""
    by: dict[str, int] = {}
    for move in moves:
        for place, count in ((move.source, -move.count), (move.target, move.count)):
            if place is not None:
                by[place.stage] = by.get(place.stage, 0) + count
    return tuple((stage, one.applied(now, by.get(stage, 0))) for stage, one in histories)


def _grown(
    observation: Observation, target: Mapping[str, Mapping[str, int]], limits: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Return the replicas there are, and those of a plan as far as a stage has too few."""
    grown: dict[str, dict[str, int]] = {}
    for stage, pools in observation.replicas.items():
        there = {pool: one.committed for pool, one in pools.items()}
        missing = limits[stage] - sum(there.values())
        for pool, count in target[stage].items():
            more = max(0, min(missing, count - there.get(pool, 0)))
            there[pool] = there.get(pool, 0) + more
            missing -= more
        grown[stage] = there
    return grown


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
