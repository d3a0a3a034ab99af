"""What the dispatcher remembers of workers."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from disagfusion.dispatch.agenda import Agenda
from disagfusion.dispatch.estimates import Estimates, Pace
from disagfusion.dispatch.events import WorkerInfo, WorkerState
from disagfusion.dispatch.flow import Flow, FlowTable
from disagfusion.dispatch.groups import Group, Member
from disagfusion.jobs.model import Stage

if TYPE_CHECKING:
    from disagfusion.dispatch.tables import Assignment

# Twice the slots that a worker may have: an offer under way is not older than that.
_REMEMBERED_GRANTS = 128

# A choice looks at each pool. Of the workers of a pipeline that name none, so many are pools by
# themselves; the others are one pool.
_MAX_SOLOS = 64


@dataclass(slots=True, eq=False)
class WorkerEntry:
    """A live worker.

    Attributes:
        connected: Whether its stream stands.
        grants: Rights that are not used, oldest first.
        used: Grants that were used lately: never again, whatever is offered.
        assignments: By job id, in the order in which they were given.
        holding: (job id, stage) of the outputs it holds for unfinished jobs.
        strikes: Job id → time, of jobs that it failed and another did.
        last_assigned: Serial number of the last assignment, to break ties.
        order: Serial number of its arrival, to break those that are left.
        members: What it is among those that do the same stage, by stage.
        paces: By stage, how it differs from its pool.
        solo: Whether it is a pool by itself.
        end: When what runs is predicted to end; minus infinity where nothing runs.
        queued: Predicted seconds of what it was given that does not run yet.
        known: Whether all these predictions are known.
    """

    info: WorkerInfo
    name: str = field(init=False)
    connected: bool = True
    grants: dict[str, None] = field(default_factory=dict)
    used: OrderedDict[str, None] = field(default_factory=OrderedDict)
    assignments: dict[str, Assignment] = field(default_factory=dict)
    holding: set[tuple[str, Stage]] = field(default_factory=set)
    strikes: dict[str, float] = field(default_factory=dict)
    condemned: bool = False
    last_assigned: int = 0
    order: int = 0
    members: dict[Stage, Member] = field(default_factory=dict)
    paces: dict[Stage, Pace] = field(default_factory=dict)
    solo: bool = False
    end: float = -math.inf
    queued: float = 0.0
    known: bool = True

    def __post_init__(self) -> None:
        self.name = self.info.name

    @property
    def ready(self) -> bool:
        """Whether it would take work."""
        return self.connected and not self.condemned and self.info.state is WorkerState.READY

    def offer(self, grant_ids: Iterable[str]) -> None:
        """Add grants, but none that were used."""
        for grant in grant_ids:
            if grant not in self.used:
                self.grants[grant] = None

    def take_grant(self) -> str:
        """Use up the oldest grant."""
        grant = next(iter(self.grants))
        del self.grants[grant]
        self.used[grant] = None
        if len(self.used) > _REMEMBERED_GRANTS:
            self.used.popitem(last=False)
        return grant

    def reckon(self, now: float) -> None:
        """Sum up what it has to do before it could begin another job."""
        end, queued, known = -math.inf, 0.0, True
        for assignment in self.assignments.values():
            known = known and assignment.known
            if assignment.end is None:
                queued += assignment.seconds
            elif end == -math.inf:
                end = assignment.end
            else:
                end = max(end, now) + max(0.0, assignment.end - now)
        self.end, self.queued, self.known = end, queued, known

    def remaining(self, now: float) -> float:
        """Predict in how many seconds it could begin another job."""
        end = self.end
        return end - now + self.queued if end > now else self.queued


class WorkerTable:
    """The live workers, by name and by what they do."""

    def __init__(self, flows: FlowTable, estimates: Estimates, agenda: Agenda) -> None:
        self._flows = flows
        self._estimates = estimates
        self._agenda = agenda
        self._workers: dict[str, WorkerEntry] = {}
        self._counts: Counter[Stage] = Counter()
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[WorkerEntry]:
        return iter(self._workers.values())

    def get(self, name: str, incarnation: str | None = None) -> WorkerEntry | None:
        """Return a worker, if it is this incarnation."""
        worker = self._workers.get(name)
        if incarnation is None or worker is None or worker.info.incarnation == incarnation:
            return worker
        return None

    def count(self, stage: Stage) -> int:
        """Return how many workers do a stage, of all pipelines."""
        return self._counts[stage]

    def put(self, worker: WorkerEntry, info: WorkerInfo) -> None:
        """Add a worker, or take note of its new description; to be settled."""
        old = self._workers.get(worker.name)
        if old is not worker:
            self._arrivals += 1
            worker.order = self._arrivals
            self._workers[worker.name] = worker
        elif _place(info) != _place(worker.info):
            self._leave(worker)
        worker.info = info
        if not worker.members:
            self._join(worker)

    def remove(self, worker: WorkerEntry) -> None:
        """Forget a worker."""
        del self._workers[worker.name]
        worker.connected = False
        self._leave(worker)

    def settle(self, worker: WorkerEntry, now: float, horizon: float) -> None:
        """Bring the order of workers in line with what has become of one.

        Who waits is looked at if that may get somebody a worker.
        """
        ready = worker.ready
        free = offering = ready and bool(worker.grants)
        if offering and worker.assignments:
            worker.reckon(now)
            free = not worker.known or worker.remaining(now) <= horizon
        for member in worker.members.values():
            taken = bool(member.group.ready)
            if not member.settle(ready, now):
                continue
            if bool(member.group.ready) is not taken:
                # It may have been the last of its version that a stage had, or be the first.
                self._look_anew(member.lane.flow)
            queues = member.lane.queues
            # Workers of another version may be second choice as long as there are any of this.
            several = len(member.lane.groups) > 1
            for version in ("", worker.info.version):
                queue = queues.get(version)
                if queue is None or not queue.items.size:
                    continue
                if free or several or queue.wary or member in queue.awaited:
                    self._agenda.mark(queue)
                if offering and not free and worker.end > now:
                    self._agenda.look_no_later(queue, worker.end + worker.queued)

    def _join(self, worker: WorkerEntry) -> None:
        info = worker.info
        flow = self._flows.of(info.pipeline)
        flow.workers += 1
        flow.changes += 1
        worker.solo = not info.pool and flow.solos < _MAX_SOLOS
        flow.solos += worker.solo
        # Pools that have a name are DNS labels.
        name = f"/{info.name}" if worker.solo else info.pool
        for stage in sorted(info.stages):
            lane = flow.lane(stage)
            lane.slots += info.slots
            lane.workers += 1
            self._counts[stage] += 1
            groups = lane.groups.setdefault(info.version, {})
            if name not in groups:
                estimate = self._estimates.of(info.pipeline, name, stage, info.pool)
                estimate.users += 1
                groups[name] = Group(info.version, name, estimate)
            pace = None if worker.solo else worker.paces.setdefault(stage, Pace())
            worker.members[stage] = Member(worker, lane, groups[name], pace)
        self._look_anew(flow)

    def _leave(self, worker: WorkerEntry) -> None:
        info = worker.info
        flow = self._flows.of(info.pipeline)
        flow.workers -= 1
        flow.changes += 1
        flow.solos -= worker.solo
        for stage, member in worker.members.items():
            member.leave()
            lane, group = member.lane, member.group
            lane.slots -= info.slots
            lane.workers -= 1
            self._counts[stage] -= 1
            if not group.size:
                group.estimate.users -= 1
                groups = lane.groups[info.version]
                del groups[group.name]
                if not groups:
                    del lane.groups[info.version]
            lane.prune()
        worker.members.clear()
        self._look_anew(flow)
        self._flows.release(flow)

    def _look_anew(self, flow: Flow) -> None:
        """Let all who wait be looked at: who there is, and of what version, has changed."""
        for lane in flow.lanes:
            for queue in lane.queues.values():
                self._agenda.look_at(queue, None)
            self._agenda.mark_lane(lane)


def _place(info: WorkerInfo) -> tuple[object, ...]:
    return info.pipeline, info.stages, info.version, info.pool, info.slots
