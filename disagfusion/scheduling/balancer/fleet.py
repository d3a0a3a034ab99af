"""How many replicas there are, and whether there is room for more."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.observation import Observation
from disagfusion.scheduling.profile import Profile


class Room:
    """Accelerators that are free, and the bounds of stages.

    What terminates still takes its accelerators.

    Args:
        profile: Accelerators of each replica; minima and maxima.
        budget: Accelerators in all.
        observation: The replicas there are.
        full: Pools that nothing can start in.
    """

    def __init__(
        self, profile: Profile, budget: int, observation: Observation, full: frozenset[str]
    ) -> None:
        self._profile = profile
        self._observation = observation
        self._full = full
        held = {
            place: observation.replicas[place.stage][place.pool].held for place in places(profile)
        }
        used = {pool: 0 for pool in profile.pools}
        for place, count in held.items():
            used[place.pool] += count * self.accelerators(place)
        self._free = {
            pool: min(observation.accelerators.get(pool, 0), profile.pools[pool].accelerators)
            - count
            for pool, count in used.items()
        }
        self._budget = budget - sum(used.values())
        self._over = {pool: max(0, -free) for pool, free in self._free.items()}

    def copy(self) -> Room:
        """Return the same room, to try something in thought."""
        other = copy.copy(self)
        other._free = dict(self._free)  # noqa: SLF001 -- another of this class
        return other

    def accelerators(self, place: Place) -> int:
        """Return what one replica takes."""
        return self._profile.stages[place.stage].pools[place.pool].accelerators

    def starts(self, place: Place, *, instead: Place | None = None, bounded: bool = True) -> int:
        """Return how many replicas can start at a place now.

        Args:
            place: Where.
            instead: Each as soon as one on another pool has stopped.
            bounded: Whether the stage's maximum counts.
        """
        if place.pool in self._full:
            return 0
        need = self.accelerators(place)
        count = max(0, self._free[place.pool]) // need
        each = need if instead is None else need - self.accelerators(instead)
        if each > 0 or self._budget < 0:
            count = min(count, max(0, self._budget) // max(1, each))
        if bounded and (instead is None or instead.stage != place.stage):
            count = min(count, self.below_maximum(place.stage))
        return count

    def stops(self, place: Place, count: int, source: Place) -> int | None:
        """Return how many replicas have to stop so that others can start; None: no number will do.

        On the same pool these start as soon as those have stopped; on another they take what is
        free there now.

        Args:
            place: Where they are to start.
            count: How many.
            source: Where some stop.
        """
        need, each = count * self.accelerators(place), self.accelerators(source)
        lacking = need - self._budget
        if place.pool in self._full:
            return None
        if source.pool == place.pool:
            lacking = max(lacking, need - self._free[place.pool])
        elif need > self._free[place.pool]:
            return None
        return max(0, -(-lacking // each))

    def take(self, place: Place, count: int) -> None:
        """Take note that so many will start."""
        self._budget -= count * self.accelerators(place)
        self._free[place.pool] -= count * self.accelerators(place)

    def give(self, place: Place, count: int) -> None:
        """Take note that so many will stop; until then they take their pool's accelerators."""
        self._budget += count * self.accelerators(place)

    def swap(self, place: Place, count: int, source: Place, stops: int) -> None:
        """Take note that so many will start when others have stopped.

        What these leave over counts as free only when they are gone.
        """
        need = count * self.accelerators(place)
        more = max(0, need - stops * self.accelerators(source))
        self._budget -= more
        self._free[place.pool] -= more if source.pool == place.pool else need

    def stuck(self, place: Place) -> int:
        """Return how many replicas have been asked for that cannot start: the pool has failed."""
        counts = self._observation.replicas[place.stage][place.pool]
        waiting = max(0, counts.starting - len(counts.available_at))
        return min(waiting, -(-self._over[place.pool] // self.accelerators(place)))

    def below_maximum(self, stage: str) -> int:
        """Return how many replicas a stage may get."""
        most = self._profile.stages[stage].max
        committed = self.committed(stage)
        return 10**9 if most is None else max(0, most - committed)

    def above_minimum(self, stage: str) -> int:
        """Return how many fewer replicas a stage may have, those that start included."""
        return max(0, self.committed(stage) - self.least(stage))

    def spare(self, stage: str) -> int:
        """Return how many replicas may leave a stage now: those that start do not count yet."""
        ready = sum(one.ready for one in self._observation.replicas[stage].values())
        return max(0, ready - self.least(stage))

    def least(self, stage: str) -> int:
        """Return how many replicas a stage keeps: its minimum, and one in any case."""
        return max(1, self._profile.stages[stage].min)

    def committed(self, stage: str) -> int:
        """Return the replicas of a stage that take work or will."""
        return sum(one.committed for one in self._observation.replicas[stage].values())

    def ready(self, place: Place) -> int:
        """Return the replicas of a place that take work."""
        return self._observation.replicas[place.stage][place.pool].ready

    def count(self, place: Place) -> int:
        """Return the replicas of a place that take work or will."""
        return self._observation.replicas[place.stage][place.pool].committed


def uniform(profile: Profile) -> bool:
    """Whether every change of stage can be made in place: one pool, and all take as much of it."""
    taken = {
        where.accelerators
        for stage in profile.stages.values()
        for pool, where in stage.pools.items()
        if pool in profile.pools
    }
    return len(profile.pools) == 1 and len(taken) == 1


def places(profile: Profile) -> Iterator[Place]:
    """Yield every place where a stage can run."""
    for stage, stage_profile in profile.stages.items():
        for pool in stage_profile.pools:
            yield Place(stage, pool)
