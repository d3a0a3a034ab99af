"""What would become of the unfinished jobs if replicas changed, now or later.

Each stage serves in the order in which jobs reach it, each job on the pool that would have done it
first. A stage is gone through job by job with a heap of the times at which replicas are free, so
that one look costs O(jobs · log replicas) and needs no events. Where there is too much of either,
`unit` jobs and `unit` replicas are taken together, which keeps every stage's capacity exact.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Spot = tuple[int, int]
"""Index of a stage and of a pool."""

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Item:
    """A job, or some that are alike.

    Attributes:
        stage: Index of the stage it waits for.
        kind: Index of what it asks for.
        ready: Seconds from now until it can begin there.
        age: Seconds since it was submitted; negative if it is still to come.
        weight: How many jobs it stands for.
    """

    stage: int
    kind: int
    ready: float
    age: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Change:
    """Replicas that change their place.

    Attributes:
        delay: Seconds from now until they stop taking work.
        source: Where they drain; None: they are new.
        target: Where they take work next; None: nowhere.
        count: How many.
        seconds: From the end of their last job until they take work.
        ahead: Whether these count from when they stop taking work, while they have jobs to finish.
        stops: How many drain so that `count` others can start; None: as many.
    """

    delay: float
    source: Spot | None
    target: Spot | None
    count: int
    seconds: float
    ahead: bool = False
    stops: int | None = None

    @property
    def leaving(self) -> int:
        """How many leave the source."""
        return self.count if self.stops is None else self.stops

    def joins(self, released: float) -> float:
        """Return when one takes work that has ended its last job at a time."""
        if self.ahead:
            return max(released, self.delay + self.seconds)
        return released + self.seconds


@dataclass(frozen=True, slots=True)
class Prospect:
    """What becomes of the jobs.

    Attributes:
        last: Seconds from now until the last one ends.
        mean: Mean latency, from submission to end.
        p95: 95th percentile of it.
    """

    last: float
    mean: float
    p95: float


Flow = list[tuple[float, int, int, float, float]]
"""Jobs as (ready, rank among those ready at once, kind, age, weight)."""


@dataclass(slots=True)
class Outlook:
    """Jobs and replicas at one moment.

    Attributes:
        seconds: Stage → pool → kind → seconds of a job; infinite where it does not fit.
        free: Place → seconds from now until each unit of replicas there is free; ascending or not.
        items: Jobs, those that run included as waiting for the next stage once they are done.
        stretch: Place → by how much a unit's service takes longer than a job's, per job in it.
        done: (seconds from now, age, weight) of jobs in the last stage, which end for certain.
        unit: Replicas that are taken together.
    """

    seconds: Sequence[Mapping[int, Sequence[float]]]
    free: Mapping[Spot, Sequence[float]]
    items: Sequence[Item]
    stretch: Mapping[Spot, float] = field(default_factory=dict)
    done: Sequence[tuple[float, float, float]] = ()
    unit: int = 1
    _waiting: list[Flow] | None = None
    _passed: list[Flow] = field(default_factory=list)

    def prospect(self, changes: Sequence[Change] = ()) -> Prospect:
        """Look ahead under changes; all infinite if jobs are left without replicas."""
        leaving: dict[Spot, list[Change]] = {}
        joining: dict[Spot, list[float]] = {}
        for change in changes:
            if change.source is None:
                assert change.target is not None, "a change has an end at least"
                joining.setdefault(change.target, []).extend(
                    [change.delay + change.seconds] * self._units(change.count)
                )
            else:
                leaving.setdefault(change.source, []).append(change)
                # Schedules do not differ before the change: who is free then is known.
                if change.target is not None and change.target[0] <= change.source[0]:
                    comers = self._comers(change)
                    for released, count in zip(self._released(change), comers, strict=False):
                        joins = [change.joins(released)] * count
                        joining.setdefault(change.target, []).extend(joins)
        first = min((spot[0] for spot in (*leaving, *joining)), default=len(self.seconds))
        # What happens in front of the first stage that changes is known from the time before.
        first = min(first, len(self._passed))
        flow = self._passed[first - 1] if first else []
        for stage in range(first, len(self.seconds)):
            flow = sorted([*flow, *self._arrivals(stage)])
            served = self._serve(stage, flow, leaving, joining)
            if served is None:
                return Prospect(math.inf, math.inf, math.inf)
            flow = served
            if not changes:
                self._passed.append(flow)
        return _summarize(
            [*self.done, *[(ready, age, weight) for ready, _, _, age, weight in flow]]
        )

    def arrives(self, change: Change) -> float:
        """Return when the last of the replicas that change their place takes work there."""
        if change.source is None:
            return change.delay + change.seconds
        released = self._released(change)
        return change.joins(released[-1] if released else change.delay)

    def _arrivals(self, stage: int) -> Flow:
        """Return the jobs that wait for a stage, or will without having passed another."""
        if self._waiting is None:
            self._waiting = [[] for _ in self.seconds]
            for item in self.items:
                rank = -round(item.age * 1e3)
                one = (item.ready, rank, item.kind, item.age, item.weight)
                self._waiting[item.stage].append(one)
        return self._waiting[stage]

    def _units(self, count: int) -> int:
        return max(1, round(count / self.unit))

    def _comers(self, change: Change) -> list[int]:
        """Return how many can start when the first has gone, the second, and so on."""
        leaving, coming = self._units(change.leaving), self._units(change.count)
        return [
            (number + 1) * coming // leaving - number * coming // leaving
            for number in range(leaving)
        ]

    def _released(self, change: Change) -> list[float]:
        assert change.source is not None, "only those that leave are released"
        free = sorted(max(change.delay, at) for at in self.free.get(change.source, ()))
        return free[: self._units(change.leaving)]

    def _serve(
        self,
        stage: int,
        flow: Flow,
        leaving: dict[Spot, list[Change]],
        joining: dict[Spot, list[float]],
    ) -> Flow | None:
        """Return when each job is through, in any order; None if one never is."""
        places: list[_Servers] = []
        for pool, seconds in self.seconds[stage].items():
            spot = (stage, pool)
            times = [*self.free.get(spot, ()), *joining.get(spot, ())]
            gone = sorted(leaving.get(spot, ()), key=lambda change: change.delay)
            pending = [(change, count) for change in gone for count in self._comers(change)]
            if times:
                servers = _Servers(times, pending, seconds, self.stretch.get(spot, 0.0))
                servers.retire(0.0, joining)
                places.append(servers)
        if any(servers.leaving for servers in places):
            served = _serve_changing(flow, places, joining)
        else:
            served = _serve_steady(flow, places)
        for servers in places:
            servers.retire(math.inf, joining)
        return served


class _Servers:
    """The replicas of one place, by the times at which they are free."""

    __slots__ = ("leaving", "seconds", "stretch", "times")

    def __init__(
        self,
        times: list[float],
        leaving: list[tuple[Change, int]],
        seconds: Sequence[float],
        stretch: float,
    ) -> None:
        self.times = times
        heapq.heapify(times)
        self.leaving = leaving
        self.seconds = seconds
        self.stretch = stretch

    def retire(self, begin: float, joining: dict[Spot, list[float]]) -> None:
        """Let those leave that are to be gone when the next job begins; not before its time."""
        while self.leaving and self.times:
            if max(begin, self.times[0]) < self.leaving[0][0].delay - _EPSILON:
                return
            change, comers = self.leaving.pop(0)
            released = max(change.delay, heapq.heappop(self.times))
            if change.target is not None and change.source is not None:
                if change.target[0] > change.source[0]:
                    joins = [change.joins(released)] * comers
                    joining.setdefault(change.target, []).extend(joins)


def _serve_steady(flow: Flow, places: list[_Servers]) -> Flow | None:
    """Serve where nobody leaves any more; where most of the time goes."""
    served = []
    usable = [(one.times, one.seconds, one.stretch) for one in places if one.times]
    replace = heapq.heapreplace
    for ready, rank, kind, age, weight in flow:
        best: list[float] = []
        best_end = math.inf
        for times, seconds, stretch in usable:
            begin = times[0]
            if ready > begin:
                begin = ready
            stretched = stretch * weight
            taken = seconds[kind]
            end = begin + (taken * stretched if stretched > 1.0 else taken)
            if end < best_end:
                best, best_end = times, end
        if not best:
            return None
        replace(best, best_end)
        served.append((best_end, rank, kind, age, weight))
    return served


def _serve_changing(
    flow: Flow, places: list[_Servers], joining: dict[Spot, list[float]]
) -> Flow | None:
    """Serve where some leave later on."""
    served: Flow = []
    for index, (ready, rank, kind, age, weight) in enumerate(flow):
        for servers in places:
            servers.retire(ready, joining)
        if not any(servers.leaving for servers in places):
            rest = _serve_steady(flow[index:], places)
            return None if rest is None else served + rest
        best: _Servers | None = None
        best_end = math.inf
        for servers in places:
            if not servers.times:
                continue
            begin = max(ready, servers.times[0])
            stretched = servers.stretch * weight
            taken = servers.seconds[kind]
            end = begin + (taken * stretched if stretched > 1.0 else taken)
            if end < best_end:
                best, best_end = servers, end
        if best is None:
            return None
        heapq.heapreplace(best.times, best_end)
        served.append((best_end, rank, kind, age, weight))
    return served


def _summarize(ended: list[tuple[float, float, float]]) -> Prospect:
    if not ended:
        return Prospect(0.0, 0.0, 0.0)
    latencies = [(at + age, weight) for at, age, weight in ended]
    latencies.sort()
    total = math.fsum([weight for _, weight in latencies])
    mean = math.fsum([latency * weight for latency, weight in latencies]) / total
    reached, p95 = 0.0, latencies[-1][0]
    for latency, weight in latencies:
        reached += weight
        if reached >= 0.95 * total - _EPSILON:
            p95 = latency
            break
    return Prospect(max([at for at, _, _ in ended]), mean, p95)
