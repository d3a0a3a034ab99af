"""Where to go: the exact plans for the jobs that come and for the work that there is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.balancer.fleet import uniform
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.observation import JobGroup, Observation, Predictor
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape

_SEARCH_LIMIT = 200
_LEAST_SECONDS = 1e-3


class Targets:
    """Asks the planner for the best replicas of all stages on all pools.

    Args:
        profile: Stages and pools.
        budget: Accelerators in all.
    """

    def __init__(self, profile: Profile, budget: int) -> None:
        self._profile = profile
        self._budget = budget

    def plans(
        self,
        observation: Observation,
        jobs: Sequence[JobGroup],
        rates: Mapping[Shape, float],
        horizon: float,
        predictor: Predictor,
    ) -> list[Mapping[Place, int]]:
        """Return at most two plans, as replicas by place.

        The one for the jobs that come keeps up longest. The one for the work there is, with what
        comes within the horizon, is done soonest.
        """
        if uniform(self._profile):
            # Every change towards a plan is a change of stage that is looked at anyway.
            return []
        coming = {(0, shape): rate for shape, rate in rates.items()}
        there = {key: rate * horizon for key, rate in coming.items()}
        for group in jobs:
            key = group.stage, group.shape
            there[key] = there.get(key, 0.0) + group.count
        found: list[Mapping[Place, int]] = []
        for work in (coming, there):
            wanted = self._plan(observation, work, predictor) if work else None
            if wanted is not None and wanted not in found:
                found.append(wanted)
        return found

    def _plan(
        self,
        observation: Observation,
        work: Mapping[tuple[int, Shape], float],
        predictor: Predictor,
    ) -> Mapping[Place, int] | None:
        """Return a plan for jobs by stage reached and shape; None where there is none."""
        pools = {
            pool: where.model_copy(
                update={
                    "accelerators": min(where.accelerators, observation.accelerators.get(pool, 0))
                }
            )
            for pool, where in self._profile.pools.items()
        }
        total = sum(work.values())
        stages = {}
        for index, (stage, what) in enumerate(self._profile.stages.items()):
            ahead = [(shape, count) for (at, shape), count in work.items() if at <= index]
            costs = dict(self._seconds(stage, ahead, total, predictor))
            if not costs:
                return None
            stages[stage] = what.model_copy(
                update={
                    "pools": {
                        pool: what.pools[pool].model_copy(
                            update={"seconds": seconds, "model": None, "memory_gib": None}
                        )
                        for pool, seconds in costs.items()
                    }
                }
            )
        current = {
            stage: {pool: one.committed for pool, one in observation.replicas[stage].items()}
            for stage in stages
        }
        profile = self._profile.model_copy(update={"pools": pools, "stages": stages})
        try:
            found = plan(profile, None, self._budget, current, limit=_SEARCH_LIMIT, compare=False)
        except FailedPreconditionError:
            return None
        return {
            Place(s, pool): n for s, there in found.replicas.items() for pool, n in there.items()
        }

    def _seconds(
        self,
        stage: str,
        ahead: Sequence[tuple[Shape, float]],
        total: float,
        predictor: Predictor,
    ) -> Iterator[tuple[str, float]]:
        """Yield seconds for each job of all, by pool that every one of them fits."""
        for pool in self._profile.stages[stage].pools:
            seconds = sum(count * predictor.seconds(stage, pool, shape) for shape, count in ahead)
            if not math.isinf(seconds):
                # Few digits: the planner takes each at its word, and reckons with fractions.
                yield pool, float(f"{max(_LEAST_SECONDS, seconds / total):.4g}")
