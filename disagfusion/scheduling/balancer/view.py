"""From what was observed to an outlook: who is free when, and which jobs are there or expected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from disagfusion.scheduling.balancer.fleet import uniform
from disagfusion.scheduling.balancer.outlook import Item, Outlook, Spot
from disagfusion.scheduling.decision import Move, Place
from disagfusion.scheduling.observation import JobGroup, Observation, Predictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape

_MAX_ITEMS = 300
_MAX_UNITS = 200
# Of a job that has run for longer than predicted: it may end at any time.
_OVERDUE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class View:
    """Names and indices of stages, pools and kinds of jobs.

    Attributes:
        stages: In the order of the pipeline.
        pools: In the order of the profile.
        spots: Every place where a stage can run.
        uniform: Whether every change of stage can be made in place.
    """

    stages: tuple[str, ...]
    pools: tuple[str, ...]
    spots: Mapping[Spot, Place]
    uniform: bool

    @classmethod
    def of(cls, profile: Profile) -> View:
        """Return the view of a profile."""
        stages, pools = tuple(profile.stages), tuple(profile.pools)
        spots = {
            (s, p): Place(stage, pool)
            for s, stage in enumerate(stages)
            for p, pool in enumerate(pools)
            if pool in profile.stages[stage].pools
        }
        return cls(stages, pools, spots, uniform(profile))

    def outlook(
        self,
        observation: Observation,
        jobs: Sequence[JobGroup],
        expected: Mapping[Shape, float],
        horizon: float,
        predictor: Predictor,
        under_way: Sequence[tuple[Move, float]],
        now: float,
    ) -> Outlook:
        """Return the outlook.

        Args:
            observation: Replicas, and when those that start will be there.
            jobs: All unfinished jobs.
            expected: Jobs per second that are still to come, by shape.
            horizon: For so many seconds.
            predictor: How long stages take.
            under_way: Moves that are not finished, and the seconds that they take after draining.
            now: Seconds.
        """
        kinds = {shape: index for index, shape in enumerate(_shapes(jobs, expected))}
        seconds: list[dict[int, list[float]]] = [{} for _ in self.stages]
        for (s, p), place in self.spots.items():
            seconds[s][p] = [predictor.seconds(place.stage, place.pool, shape) for shape in kinds]
        total = sum(
            replicas.held for pools in observation.replicas.values() for replicas in pools.values()
        )
        coming = sum(expected.values()) * horizon
        count = sum(group.count for group in jobs) + coming
        unit = max(1, math.ceil(total / _MAX_UNITS))
        builder = _Builder(self, kinds, seconds, unit, max(unit, math.ceil(count / _MAX_ITEMS)))
        for group in builder.together(jobs):
            builder.add(group)
        for shape, rate in expected.items():
            builder.expect(kinds[shape], rate, horizon)
        builder.replicas(observation, under_way, now)
        return Outlook(seconds, builder.free, builder.items, builder.stretch, builder.done, unit)


class _Builder:
    def __init__(
        self,
        view: View,
        kinds: Mapping[Shape, int],
        seconds: Sequence[Mapping[int, Sequence[float]]],
        unit: int,
        batch: int,
    ) -> None:
        self._view = view
        self._kinds = kinds
        self._seconds = seconds
        self._unit = unit
        # A unit that gets single jobs would do no more than one replica.
        self._batch = batch
        self.items: list[Item] = []
        self.done: list[tuple[float, float, float]] = []
        self.free: dict[Spot, list[float]] = {}
        self.stretch: dict[Spot, float] = {}
        self._running: dict[Spot, list[float]] = {}
        self._draining: dict[Spot, list[float]] = {}

    def together(self, jobs: Sequence[JobGroup]) -> Iterator[JobGroup]:
        """Yield jobs that wait, where there are many, together with others of their age."""
        alike: dict[tuple[int, Shape], list[JobGroup]] = {}
        for group in jobs:
            if self._batch == 1 or group.pool or group.count >= self._batch:
                yield group
            else:
                alike.setdefault((group.stage, group.shape), []).append(group)
        for groups in alike.values():
            groups.sort(key=lambda group: -group.age)
            count, ages = 0, 0.0
            for group in groups:
                count, ages = count + group.count, ages + group.count * group.age
                if count >= self._batch:
                    yield replace(group, count=count, age=ages / count)
                    count, ages = 0, 0.0
            if count:
                yield replace(groups[-1], count=count, age=ages / count)

    def add(self, group: JobGroup) -> None:
        pieces = math.ceil(group.count / self._batch)
        weight = group.count / pieces
        kind = self._kinds[group.shape]
        if not group.pool:
            self.items += [Item(group.stage, kind, 0.0, group.age, weight)] * pieces
            return
        spot = (group.stage, self._view.pools.index(group.pool))
        seconds = self._seconds[group.stage][spot[1]][kind]
        busy = (self._draining if group.draining else self._running).setdefault(spot, [])
        for piece in range(pieces):
            # A mean of many is taken as evenly spread over the service time.
            elapsed = group.elapsed
            if pieces > 1 or group.count > 1:
                elapsed = seconds * (piece + 0.5) / pieces
            left = max(seconds - elapsed, _OVERDUE_SHARE * seconds)
            busy += [left] * round(weight)
            if group.stage + 1 < len(self._view.stages):
                self.items.append(Item(group.stage + 1, kind, left, group.age, weight))
            else:
                self.done.append((left, group.age, weight))

    def expect(self, kind: int, rate: float, horizon: float) -> None:
        count = rate * horizon
        pieces = math.ceil(count / self._batch)
        if not pieces:
            return
        for piece in range(pieces):
            at = (piece + 1) * horizon / pieces
            self.items.append(Item(0, kind, at, -at, count / pieces))

    def replicas(
        self, observation: Observation, under_way: Sequence[tuple[Move, float]], now: float
    ) -> None:
        for spot, place in self._view.spots.items():
            counts = observation.replicas.get(place.stage, {}).get(place.pool)
            if counts is None:
                continue
            running = sorted(self._running.get(spot, ()))[: counts.ready]
            times = running + [0.0] * (counts.ready - len(running))
            # Those that nobody can say when to expect may never come.
            times += [max(0.0, at - now) for at in counts.available_at[: counts.starting]]
            self.free[spot] = times
        for move, seconds in under_way:
            if move.source is None or move.target is None:
                continue
            source, target = self._spot(move.source), self._spot(move.target)
            counts = observation.replicas.get(move.source.stage, {}).get(move.source.pool)
            still = min(move.count, counts.draining if counts else 0)
            left = sorted(self._draining.get(source, ()))
            left = [0.0] * max(0, still - len(left)) + left
            if source[1] == target[1]:
                self.free.setdefault(target, []).extend(at + seconds for at in left[:still])
        for spot, times in self.free.items():
            exact = len(times)
            if self._unit > 1 and exact:
                # Rounded up: a unit is never less than what it is made of can do.
                units = math.ceil(exact / self._unit)
                ordered = sorted(times)
                times[:] = [ordered[(2 * i + 1) * exact // (2 * units)] for i in range(units)]
                self.stretch[spot] = units / exact
            elif self._batch > 1:
                self.stretch[spot] = 1.0 / self._unit

    def _spot(self, place: Place) -> Spot:
        return self._view.stages.index(place.stage), self._view.pools.index(place.pool)


def _shapes(jobs: Sequence[JobGroup], expected: Mapping[Shape, float]) -> list[Shape]:
    return list(dict.fromkeys([*(group.shape for group in jobs), *expected]))
