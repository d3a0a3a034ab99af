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
    """

    delay: float
    source: Spot | None
    target: Spot | None
    count: int
    seconds: float


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


@dataclass(slots=True)
class Outlook:
    """Jobs and replicas at one moment.

    Attributes:
        seconds: Stage → pool → kind → seconds of a job; infinite where it does not fit.
        free: Place → seconds from now until each unit of replicas there is free; ascending or not.
        items: Jobs, those that run included as waiting for the next stage once they are done.
        stretch: Place → by how much a unit's service takes longer than a job's, per job in it.
        done: (seconds from now, age, weight) of jobs in the last stage, which end for certain.
        unit: Replicas, and jobs, that are taken together.
    """

    seconds: Sequence[Mapping[int, Sequence[float]]]
    free: Mapping[Spot, Sequence[float]]
    items: Sequence[Item]
    stretch: Mapping[Spot, float] = field(default_factory=dict)
    done: Sequence[tuple[float, float, float]] = ()
    unit: int = 1

    def prospect(self, changes: Sequence[Change] = ()) -> Prospect:
        """Look ahead under changes; all infinite if jobs are left without replicas."""
        leaving: dict[Spot, list[Change]] = {}
        joining: dict[Spot, list[float]] = {}
        for change in changes:
            if change.source is None:
                assert change.target is not None, "a change has an end at least"
                joining.setdefault(change.target, []).extend(
                    [change.delay + change.seconds] * self._units(change)
                )
            else:
                leaving.setdefault(change.source, []).append(change)
                # Schedules do not differ before the change: who is free then is known.
                if change.target is not None and change.target[0] <= change.source[0]:
                    for released in self._released(change):
                        joining.setdefault(change.target, []).append(released + change.seconds)
        ended = list(self.done)
        flow: list[tuple[float, int, int, float, float]] = []
        for stage in range(len(self.seconds)):
            flow += [
                (item.ready, -round(item.age * 1e3), item.kind, item.age, item.weight)
                for item in self.items
                if item.stage == stage
            ]
            flow.sort()
            served = self._serve(stage, flow, leaving, joining)
            if served is None:
                return Prospect(math.inf, math.inf, math.inf)
            flow = served
        ended += [(ready, age, weight) for ready, _, _, age, weight in flow]
        return _summarize(ended)

    def _units(self, change: Change) -> int:
        return max(1, round(change.count / self.unit))

    def _released(self, change: Change) -> list[float]:
        assert change.source is not None, "only those that leave are released"
        free = sorted(max(change.delay, at) for at in self.free.get(change.source, ()))
        return free[: self._units(change)]

    def _serve(
        self,
        stage: int,
        flow: list[tuple[float, int, int, float, float]],
        leaving: dict[Spot, list[Change]],
        joining: dict[Spot, list[float]],
    ) -> list[tuple[float, int, int, float, float]] | None:
        """Return when each job is through, in any order; None if one never is."""
        heaps: list[_Servers] = []
        for pool, seconds in self.seconds[stage].items():
            spot = (stage, pool)
            times = [*self.free.get(spot, ()), *joining.get(spot, ())]
            gone = sorted(leaving.get(spot, ()), key=lambda change: change.delay)
            pending = [change for change in gone for _ in range(self._units(change))]
            if times:
                heaps.append(_Servers(times, pending, seconds, self.stretch.get(spot, 0.0)))
        served = []
        for ready, order, kind, age, weight in flow:
            best: _Servers | None = None
            best_end = math.inf
            for servers in heaps:
                end = servers.end(ready, kind, weight, joining)
                if end < best_end:
                    best, best_end = servers, end
            if best is None:
                return None
            best.take(best_end)
            served.append((best_end, order, kind, age, weight))
        for servers in heaps:
            servers.retire_rest(joining)
        return served


class _Servers:
    """The replicas of one place, by the times at which they are free."""

    def __init__(
        self,
        times: list[float],
        leaving: list[Change],
        seconds: Sequence[float],
        stretch: float,
    ) -> None:
        self._times = times
        heapq.heapify(times)
        self._leaving = leaving
        self._seconds = seconds
        self._stretch = stretch

    def end(
        self, ready: float, kind: int, weight: float, joining: dict[Spot, list[float]]
    ) -> float:
        """Return when a job that is ready then would be done here."""
        while self._leaving and self._times:
            begin = max(ready, self._times[0])
            if begin < self._leaving[0].delay - _EPSILON:
                break
            self._retire(joining)
        if not self._times:
            return math.inf
        begin = ready if ready > self._times[0] else self._times[0]
        seconds = self._seconds[kind]
        stretched = self._stretch * weight
        return begin + (seconds * stretched if stretched > 1.0 else seconds)

    def take(self, end: float) -> None:
        """Let the replica that is free first work until then."""
        heapq.heapreplace(self._times, end)

    def retire_rest(self, joining: dict[Spot, list[float]]) -> None:
        """Let those leave that no job has waited for."""
        while self._leaving and self._times:
            self._retire(joining)

    def _retire(self, joining: dict[Spot, list[float]]) -> None:
        change = self._leaving.pop(0)
        released = max(change.delay, heapq.heappop(self._times))
        if change.target is not None and change.source is not None:
            if change.target[0] > change.source[0]:
                joining.setdefault(change.target, []).append(released + change.seconds)


def _summarize(ended: list[tuple[float, float, float]]) -> Prospect:
    if not ended:
        return Prospect(0.0, 0.0, 0.0)
    latencies = sorted((at + age, weight) for at, age, weight in ended)
    total = math.fsum(weight for _, weight in latencies)
    mean = math.fsum(latency * weight for latency, weight in latencies) / total
    reached, p95 = 0.0, latencies[-1][0]
    for latency, weight in latencies:
        reached += weight
        if reached >= 0.95 * total - _EPSILON:
            p95 = latency
            break
    return Prospect(max(at for at, _, _ in ended), mean, p95)
