"""What rules for one pool may do: a Deployment's minima and maxima, the pool, the budget."""

from __future__ import annotations

from collections.abc import Mapping

from disagfusion.scheduling.observation import Observation
from disagfusion.scheduling.profile import Profile


class Bounds:
    """Limits of the stages on the pool that all of them run on.

    Args:
        profile: Minima, maxima, and what a replica takes.
        pool: The pool.
        budget: Accelerators in all; without it the pool's.
    """

    def __init__(self, profile: Profile, pool: str, budget: int | None = None) -> None:
        self._pool = pool
        self._budget = budget
        self._least = {name: max(1, stage.min) for name, stage in profile.stages.items()}
        self._most = {name: stage.max for name, stage in profile.stages.items()}
        self._each = {
            name: stage.pools[pool].accelerators for name, stage in profile.stages.items()
        }
        self._all = profile.pools[pool].accelerators

    def least(self, stage: str) -> int:
        """Return how many replicas a stage has at least: one even where none would do."""
        return self._least[stage]

    def most(self, stage: str) -> int:
        """Return how many replicas a stage may have, were it alone."""
        most = self._all // self._each[stage]
        bound = self._most[stage]
        return most if bound is None else min(most, bound)

    def allow(self, replicas: Mapping[str, int], observation: Observation) -> bool:
        """Whether a ratio keeps to all of it; accelerators that failed are none."""
        if any(not self.least(one) <= n <= self.most(one) for one, n in replicas.items()):
            return False
        return self._used(replicas) <= self._room(observation)

    def can_change(self, source: str, target: str, observation: Observation) -> bool:
        """Whether a replica of one stage may become one of another."""
        counts = {stage: pools[self._pool] for stage, pools in observation.replicas.items()}
        if counts[source].committed <= self.least(source):
            return False
        if counts[target].committed >= self.most(target):
            return False
        more = self._each[target] - self._each[source]
        used = self._used({stage: one.held for stage, one in counts.items()})
        return more <= 0 or used + more <= self._room(observation)

    def _used(self, replicas: Mapping[str, int]) -> int:
        return sum(count * self._each[stage] for stage, count in replicas.items())

    def _room(self, observation: Observation) -> int:
        there = observation.accelerators[self._pool]
        return there if self._budget is None else min(there, self._budget)
