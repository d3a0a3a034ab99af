"""The plainest rule that reacts: the exact ratio for the work that is left, one move at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Fresh, Observation, Predictor
from disagfusion.simulation.policies.bounds import Bounds

_MIN_GAIN = 0.1


class Plain:
    """Every ten seconds the best ratio for the remaining work, where it gains a tenth.

    Args:
        stages: In the order of the pipeline.
        pool: Where all of them run.
        predictor: Seconds of stages.
        bounds: Which ratios there may be.
    """

    name = "plain"
    period = 10.0

    def __init__(
        self, stages: tuple[str, ...], pool: str, predictor: Predictor, bounds: Bounds
    ) -> None:
        self._stages = stages
        self._pool = pool
        self._predictor = predictor
        self._bounds = bounds

    def initial(self) -> None:
        """Return no state."""

    def decide(self, state: None, observation: Observation, now: float) -> tuple[None, Decision]:
        """Decide what should be done; see `Balancer`."""
        counts = [observation.replicas[stage][self._pool] for stage in self._stages]
        if any(one.starting or one.draining for one in counts):
            return None, Decision(now, (), Reason.CHANGE_UNDER_WAY)
        work = self._work(observation)
        if not any(work):
            return None, Decision(now, (), Reason.NO_DEMAND)
        ready = tuple(one.ready for one in counts)
        allowed = (
            ratio
            for ratio in _ratios(len(ready), sum(ready))
            if self._bounds.allow(dict(zip(self._stages, ratio, strict=True)), observation)
        )
        best = min(allowed, key=lambda ratio: _seconds(work, ratio), default=None)
        if best is None:
            return None, Decision(now, (), Reason.AT_LIMIT)
        if _seconds(work, best) >= (1.0 - _MIN_GAIN) * _seconds(work, ready):
            return None, Decision(now, (), Reason.WITHIN_TOLERANCE)
        gaps = dict(zip(self._stages, map(int.__sub__, best, ready), strict=True))
        for source in sorted(self._stages, key=lambda stage: gaps[stage]):
            for target in sorted(self._stages, key=lambda stage: -gaps[stage]):
                apart = gaps[source] < 0 < gaps[target]
                if apart and self._bounds.can_change(source, target, observation):
                    move = Move(Place(source, self._pool), Place(target, self._pool))
                    text = ":".join(map(str, best))
                    return None, Decision(now, (move,), Reason.REBALANCE, text)
        return None, Decision(now, (), Reason.AT_LIMIT)

    def _work(self, observation: Observation) -> list[float]:
        work = [0.0] * len(self._stages)
        if isinstance(observation.jobs, Fresh):
            for group in observation.jobs.value:
                for index in range(group.stage, len(self._stages)):
                    seconds = self._predictor.seconds(self._stages[index], self._pool, group.shape)
                    if index == group.stage and group.pool:
                        seconds = max(0.0, seconds - group.elapsed)
                    work[index] += group.count * seconds
        return work


def _seconds(work: list[float], ratio: tuple[int, ...]) -> float:
    return max(
        one / replicas if replicas else math.inf for one, replicas in zip(work, ratio, strict=True)
    )


def _ratios(stages: int, replicas: int) -> Iterator[tuple[int, ...]]:
    """Yield every way to share out replicas, at least one for each stage."""
    for cuts in itertools.combinations(range(1, replicas), stages - 1):
        edges = (0, *cuts, replicas)
        yield tuple(b - a for a, b in itertools.pairwise(edges))
