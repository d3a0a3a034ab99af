"""Workers whose predictions agree up to a factor, in the orders in which choices look at them."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from disagfusion.dispatch.estimates import Pace, PoolStage
from disagfusion.dispatch.ordered import Ordered

if TYPE_CHECKING:
    from disagfusion.dispatch.flow import Lane
    from disagfusion.dispatch.workers import WorkerEntry

EXAMINED = 16
"""Members of a group that one choice looks at, of each kind: idle ones, the soonest to be free."""

Place = tuple[float, int, int, "Member"]
"""What comes first decides; then whose last assignment is longest ago; then who came first."""

Free = tuple[float, int, int, "Member"]
"""The same with the seconds until the worker is free in the front."""


class Member:
    """A worker as one that does a stage.

    Attributes:
        worker: The worker.
        lane: The stage.
        group: Those of its version and pool.
        pace: How it differs from its pool; None: it is its pool.
    """

    __slots__ = ("_factor", "_item", "_ready", "_where", "group", "lane", "pace", "worker")

    def __init__(self, worker: WorkerEntry, lane: Lane, group: Group, pace: Pace | None) -> None:
        self.worker = worker
        self.lane = lane
        self.group = group
        self.pace = pace
        self._ready = False
        self._where: Ordered[Place] | None = None
        self._item: Place | None = None
        self._factor = self.factor
        group.join(self._factor)

    @property
    def factor(self) -> float:
        """How many times as long as its pool it takes."""
        return 1.0 if self.pace is None else self.pace.factor

    @property
    def offering(self) -> bool:
        """Whether it could be given a job, now or once it is free."""
        return self._where is not None

    def settle(self, ready: bool, now: float) -> bool:
        """Take the place in the group that the worker's state gives it.

        Args:
            ready: Whether the worker would take work.
            now: Unix seconds.

        Returns:
            Whether anything is other than it was.
        """
        worker, group = self.worker, self.group
        changed = ready is not self._ready
        if changed:
            self._ready = ready
            group.ready += 1 if ready else -1
        factor = 1.0
        if self.pace is not None and (factor := self.pace.factor) != self._factor:
            group.change_factor(self._factor, factor)
            self._factor = factor
        if not ready or not worker.grants:
            return self._put(None, 0.0) or changed
        if not worker.assignments:
            return self._put(group.idle, factor) or changed
        busy = group.known if worker.known else group.unknown
        if worker.end > now:
            return self._put(busy.running, worker.end + worker.queued) or changed
        return self._put(busy.waiting, worker.queued) or changed

    def free_in(self, now: float) -> float:
        """Predict in how many seconds the worker, which is busy, could begin another job."""
        worker = self.worker
        if worker.end > now:
            return worker.end - now + worker.queued
        if worker.queued:
            # It is overdue: time does not bring nearer what else it has to do.
            self.settle(True, now)
        return worker.queued

    def leave(self) -> None:
        """Leave the group."""
        self._put(None, 0.0)
        if self._ready:
            self.group.ready -= 1
        self.group.leave(self._factor)

    def _put(self, where: Ordered[Place] | None, first: float) -> bool:
        worker, old, item = self.worker, self._where, self._item
        if where is old:
            if item is None or (item[0] == first and item[1] == worker.last_assigned):
                return False
            old.remove(item)  # type: ignore[union-attr]
        elif old is None:
            self.group.offering += 1
        else:
            old.remove(item)  # type: ignore[arg-type]
            if where is None:
                self.group.offering -= 1
                self._where = self._item = None
                return True
        assert where is not None
        self._where = where
        self._item = (first, worker.last_assigned, worker.order, self)
        where.add(self._item)
        return True


class Busy:
    """Busy workers with a free grant, by when they will be free.

    Attributes:
        running: By the predicted time at which they have done what they have; it comes nearer.
        waiting: By the seconds they will take for what they have, where those do not pass: inputs
            are on their way, or what runs takes longer than predicted.
    """

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running: Ordered[Place] = Ordered()
        self.waiting: Ordered[Place] = Ordered()

    @property
    def size(self) -> int:
        """How many there are."""
        return self.running.size + self.waiting.size

    def beyond(self, now: float, seconds: float, count: int) -> list[Free]:
        """Return those that are not free so soon, the soonest first; at most so many."""
        places = self.running.since((now + seconds, math.inf), count)
        if self.waiting.size:
            places += self.waiting.since((seconds, math.inf), count)
        return _in_order(places, now, count)

    def next_end(self, now: float, seconds: float) -> float:
        """Return when the first of those that are not free so soon will be, if time brings it."""
        until = now + seconds
        if self.running.least > until:
            return self.running.least
        found = self.running.since((until, math.inf), 1)
        return found[0][0] if found else math.inf

    def count(self, now: float, seconds: float) -> tuple[int, float]:
        """Return how many are free within some seconds, and after how many half of them are."""
        running = self.running.before((now + seconds,))
        waiting = self.waiting.before((seconds,))
        if running >= waiting:
            middle = self.running.at(running // 2)[0] - now if running else 0.0
        else:
            middle = self.waiting.at(waiting // 2)[0]
        return running + waiting, middle


class Group:
    """The workers of one stage, pipeline, model version and pool.

    Attributes:
        version: Of the model.
        name: The pool, or what stands for it.
        estimate: What is known of the stage on the pool.
        size: How many there are.
        ready: How many would take work.
        offering: How many of those have a free grant.
        idle: Of the offering ones, those that have nothing to do, the fastest first.
        known: Of the busy ones, those of whose work all predictions are known.
        unknown: The other busy ones.
        fastest: The least factor of any.
    """

    __slots__ = (
        "_factors",
        "estimate",
        "fastest",
        "idle",
        "known",
        "name",
        "offering",
        "ready",
        "size",
        "unknown",
        "version",
    )

    def __init__(self, version: str, name: str, estimate: PoolStage) -> None:
        self.version = version
        self.name = name
        self.estimate = estimate
        self.size = self.ready = self.offering = 0
        self.idle: Ordered[Place] = Ordered()
        self.known = Busy()
        self.unknown = Busy()
        self.fastest = 1.0
        self._factors: Counter[float] = Counter()

    def join(self, factor: float) -> None:
        """Count a worker in."""
        self.size += 1
        self._count_factor(factor, 1)

    def leave(self, factor: float) -> None:
        """Count a worker out."""
        self.size -= 1
        self._count_factor(factor, -1)

    def change_factor(self, old: float, new: float) -> None:
        """Take note that a worker has another factor."""
        self._count_factor(new, 1)
        self._count_factor(old, -1)

    def any_free(self, now: float, horizon: float) -> bool:
        """Whether any may take a job: it is idle, soon free, or nobody knows when it is free."""
        known, unknown = self.known, self.unknown
        return bool(
            self.idle.size
            or known.running.least <= now + horizon
            or known.waiting.least <= horizon
            or unknown.running.size
            or unknown.waiting.size
        )

    def _count_factor(self, factor: float, by: int) -> None:
        self._factors[factor] += by
        if not self._factors[factor]:
            del self._factors[factor]
        self.fastest = min(self._factors, default=1.0)


def _in_order(places: list[Place], now: float, count: int) -> list[Free]:
    found = [(member.free_in(now), last, order, member) for _, last, order, member in places]
    if len(found) > 1:
        found.sort()
    return found[:count]
