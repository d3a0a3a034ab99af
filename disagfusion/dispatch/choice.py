"""Which worker a waiting job had best be given to.

Each group (stage, pipeline, model version and pool) keeps its workers in the orders in which a
choice wants them (`groups`), so that the first few decide:

- Idle workers: by factor, then by whose last assignment is longest ago. The first is the best of
  its group, but for the time that the input takes to get there. That can only make a worker worse,
  so the search ends as soon as the next would be no better with its input there already.
- Busy workers that are free within the horizon, and those of which it is not known when they are:
  the soonest first. Here too the search ends where no later one could be better.
- Workers for which it may pay to wait: the soonest first.

Of each group and kind at most `EXAMINED` are looked at, and where inputs are long on their way also
those that are known to be near the sender, so that a choice takes O(log n) time. It is exact unless
more than that are candidates *and* they differ in what orders do not hold: in the links to them, or
among busy ones in speed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from disagfusion.dispatch.core import Core
from disagfusion.dispatch.groups import EXAMINED, Busy, Free, Group, Member
from disagfusion.dispatch.messages import elsewhere
from disagfusion.dispatch.state import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Collection

    from disagfusion.dispatch.tables import Held, JobEntry

_NEGLIGIBLE_TRANSFER = 0.1
"""Of the time that the stage takes: milliseconds do not keep equal workers from taking turns."""


_LAST = (math.inf, 0, 0)

Rank = tuple[float, int, int]
"""When a worker would finish the job, in seconds from now; whose last assignment is longest ago,
and who came first."""


class Decision:
    """One look at one queue, while nothing but its own assignments changes anything.

    Args:
        core: The state.
        groups: Those that offer something to the queue's jobs.
    """

    def __init__(self, core: Core, groups: list[Group]) -> None:
        self._core = core
        self._groups = groups
        self._now = core.now
        self.reach = core.horizon + TOLERANCE
        self._source: Held | None = None
        self._late = False
        self._services: list[tuple[Group, float, bool]] = []
        self._best: Member | None = None
        self._rank: Rank = _LAST
        self._known = False
        self._promised: dict[Member, float] = {}
        self._later: dict[Group, list[Free]] = {}

    @property
    def many(self) -> bool:
        """Whether more workers could be waited for than are looked at."""
        for group in self._groups:
            if group.known.size > EXAMINED:
                return True
        return False

    def any_free(self) -> bool:
        """Whether any worker may be given a job now."""
        for group in self._groups:
            if group.any_free(self._now, self.reach):
                return True
        return False

    def assigned(self) -> None:
        """Take note that a worker was given a job."""
        self._later.clear()

    def avoided(self, job: JobEntry) -> Collection[str] | None:
        """Return the workers that a job must not be given to; None: it had better wait."""
        if not job.avoid:
            return ()
        offering = sum(group.offering for group in self._groups)
        failed = [name for name in job.avoid if self._offers(name, job)]
        if len(failed) < offering:
            return failed
        serious = [name for name in failed if job.avoid[name]]
        if len(serious) < len(failed):
            return serious
        return None if elsewhere(self._core, job) else ()

    def best(self, job: JobEntry, avoided: Collection[str]) -> Member | None:
        """Return the worker that would finish a job first of those that may be given it now.

        The methods below are about this job and this worker.
        """
        self._best, self._rank, self._known = None, _LAST, False
        self._source, self._late = job.source, False
        self._services = services = []
        now, count = self._now, EXAMINED + len(avoided)
        for group in self._groups:
            seconds, known = self._core.estimates.service(group.estimate, job.spec)
            services.append((group, seconds, known))
            if group.idle.size:
                for factor, last, order, member in group.idle.head(count):
                    own = seconds * factor
                    if self._rank <= (own, last, order):
                        break
                    self._weigh(avoided, member, 0.0, own, known)
            busy = group.known
            if busy.running.least <= now + self.reach or busy.waiting.least <= self.reach:
                self._weigh_busy(avoided, busy, self.reach, count, services[-1])
            busy = group.unknown
            if busy.running.size or busy.waiting.size:
                self._weigh_busy(avoided, busy, math.inf, count, (group, seconds, False))
        if self._late and any(group.idle.size > EXAMINED for group in self._groups):
            self._weigh_near(job, avoided)
        return self._best

    def sooner(self, avoided: Collection[str]) -> Member | None:
        """Return the busy worker for which the job had better wait, behind those that do."""
        if not self._known:
            return None
        found: Member | None = None
        rank = (self._rank[0], -1, -1)
        for group, seconds, known in self._services:
            if not known:
                continue
            fastest = seconds * group.fastest
            for free, last, order, member in self._could_be_waited_for(group):
                if free + fastest >= rank[0]:
                    break
                if member.worker.name in avoided:
                    continue
                own = seconds * member.factor
                free += self._promised.get(member, 0.0)
                mine = (self._begin(member, free, own) + own, last, order)
                if mine < rank:
                    found, rank = member, mine
        return found

    def wait_for(self, member: Member) -> None:
        """Let the job wait for a worker: others come behind it."""
        for group, seconds, _ in self._services:
            if group is member.group:
                promised = self._promised.get(member, 0.0)
                self._promised[member] = promised + seconds * member.factor
        assert self._best is not None, "which is not as good"
        self._promised.setdefault(self._best, 0.0)

    @property
    def awaited(self) -> Collection[Member]:
        """The workers for which jobs wait, and those they had better not take."""
        return self._promised.keys()

    def places(self) -> float:
        """Estimate for how many jobs like this it would be better to wait than to take the best.

        Each worker that is free early enough does some one after the other: as many as the one
        that is free in the middle of them.
        """
        if not self._known:
            return 0.0
        found = 0.0
        for group, seconds, known in self._services:
            patience = self._rank[0] - seconds
            if known and patience > self.reach:
                workers, middle = group.known.count(self._now, patience)
                if workers:
                    more = (patience - middle) / seconds if seconds > 0.0 else math.inf
                    found += workers * (1.0 + max(0.0, more))
        return found

    def next_end(self) -> float | None:
        """Return when a worker that is busy for longer than the horizon will be free."""
        first = math.inf
        for group in self._groups:
            first = min(first, group.known.next_end(self._now, self.reach))
        return None if first == math.inf else first

    def _could_be_waited_for(self, group: Group) -> list[Free]:
        """Return those that are busy for longer than the horizon, the soonest first."""
        found = self._later.get(group)
        if found is None:
            found = self._later[group] = group.known.beyond(self._now, self.reach, EXAMINED)
            self._core.examined += len(found)
        return found

    def _weigh_busy(
        self,
        avoided: Collection[str],
        busy: Busy,
        reach: float,
        count: int,
        service: tuple[Group, float, bool],
    ) -> None:
        """Weigh those that are free within so many seconds, at most so many of each kind."""
        group, seconds, known = service
        fastest = seconds * group.fastest
        now = self._now
        for places, begin in ((busy.running, now), (busy.waiting, 0.0)):
            if places.least > begin + reach:
                continue
            for first, last, order, member in places.head(count):
                soonest = first - begin
                if soonest > reach or self._rank <= (soonest + fastest, last, order):
                    break
                free = member.free_in(now)
                if free <= reach:
                    self._weigh(avoided, member, free, seconds * member.factor, known)

    def _weigh_near(self, job: JobEntry, avoided: Collection[str]) -> None:
        """Weigh the workers that the job's input reaches soonest, wherever they stand."""
        core, source = self._core, self._source
        assert source is not None, "something is on its way"
        services = {group: (seconds, known) for group, seconds, known in self._services}
        for name in (source.worker, *core.links.near(source.worker)):
            worker = core.workers.get(name)
            member = worker.members.get(job.stage) if worker is not None else None
            if worker is None or member is None or not member.offering:
                continue
            seconds, known = services.get(member.group, (0.0, False))
            busy = bool(worker.assignments)
            free = worker.remaining(self._now) if busy else 0.0
            if member.group in services and not (busy and worker.known and free > self.reach):
                known = known and (worker.known or not busy)
                self._weigh(avoided, member, free, seconds * member.factor, known)

    def _weigh(
        self, avoided: Collection[str], member: Member, free: float, seconds: float, known: bool
    ) -> None:
        """Let the best be this worker if it is better."""
        worker = member.worker
        self._core.examined += 1
        if worker.name in avoided:
            return
        finish = self._begin(member, free, seconds) + seconds
        rank = (finish, worker.last_assigned, worker.order)
        if rank < self._rank:
            self._best, self._rank, self._known = member, rank, known

    def _begin(self, member: Member, free: float, seconds: float) -> float:
        """Predict when a worker that is free then can begin the job: its input must be there."""
        source = self._source
        if source is None:
            return free
        link = self._core.links.estimate(source.worker, member.worker.name, self._now)
        arrival = link.latency + source.nbytes * link.seconds_per_byte
        if arrival < _NEGLIGIBLE_TRANSFER * seconds:
            return free
        self._late = True
        return max(free, arrival)

    def _offers(self, name: str, job: JobEntry) -> bool:
        worker = self._core.workers.get(name)
        member = worker.members.get(job.stage) if worker is not None else None
        return member is not None and member.offering and member.group in self._groups
