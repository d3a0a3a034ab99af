"""Which waiting jobs are assigned now, and when to look again.

Only queues that something has happened to are looked at (`agenda`), and of each no more jobs than
the lookahead. Who gets a job is `choice`'s to say.

**Waiting for a faster worker.** A job waits for a busy worker that would finish it sooner than any
that could take it now, behind the jobs that wait for that worker already. So the first few jobs of
a queue may wait, and one further behind takes the slower worker. Where more workers could be waited
for than a choice looks at, or all jobs within the lookahead wait, it is estimated how many jobs
they could take: if more than those wait, then the job in that place, or the last within the
lookahead, is given to the slower worker, so that no worker is idle beside a long queue.
"""

from __future__ import annotations

from disagfusion.dispatch.choice import Decision
from disagfusion.dispatch.core import Core
from disagfusion.dispatch.events import WorkerState
from disagfusion.dispatch.flow import Flow, Lane, Queue
from disagfusion.dispatch.groups import Member
from disagfusion.dispatch.state import TOLERANCE, TimerKind
from disagfusion.dispatch.tables import JobEntry
from disagfusion.jobs.model import Stage

_SOURCE_RETRY_SECONDS = 0.25
_MIN_WAITING = 2


def schedule(core: Core) -> None:
    """Assign all that should be assigned now.

    Later stages come first, so that what was begun is finished and held memory stays small.
    """
    agenda = core.agenda
    due = core.now + core.horizon + TOLERANCE
    if agenda.looks.least <= due:
        agenda.mark_due(due)
    if core.touched:
        core.settle()
    while True:
        if agenda.blocked:
            _open_lanes(core)
        if not agenda.marked:
            return
        _serve(core, agenda.take())


def _serve(core: Core, queue: Queue) -> None:
    """Assign what should be assigned of one queue."""
    queue.awaited, queue.wary, queue.enough = (), False, 0.0
    if not queue.items.size:
        core.agenda.look_at(queue, None)
        return
    if queue.version:
        _watch_version(core, queue)
    decision = Decision(core, queue.lane.offering(queue.version))
    if decision.any_free():
        _Round(core, queue, decision).run()
        queue.awaited = decision.awaited
    elif queue.look is not None and len(queue.lane.groups) <= 1:
        return
    core.agenda.look_at(queue, decision.next_end() if queue.items.size else None)


class _Round:
    """Gives jobs of a queue to workers until there is no job, no worker or no room left."""

    def __init__(self, core: Core, queue: Queue, decision: Decision) -> None:
        self._core = core
        self._queue = queue
        self._decision = decision
        self._lookahead = core.settings.lookahead
        self._position = 0
        """Of the job to look at; those in front of it wait although there are workers."""
        self._over = False

    def run(self) -> None:
        """Do it; some worker must be free."""
        core, decision = self._core, self._decision
        assigned = False
        while not self._over:
            job = self._job_at(self._position)
            if job is None:
                continue
            found = self._choose(job)
            if found is None:
                self._position += 1
                continue
            job, member = found
            core.assign(job, member.worker)
            core.settle()
            decision.assigned()
            assigned = True
            self._over = not decision.any_free()
        if assigned and self._position:
            # What is left may be worse for those in front than what they did not want.
            core.agenda.mark(self._queue)

    def _job_at(self, position: int) -> JobEntry | None:
        """Return a job if it may be assigned; if not, it leaves the queue, or the round is over."""
        core, queue = self._core, self._queue
        if position >= min(queue.items.size, self._lookahead):
            self._over = True
            return None
        job = queue.items.at(position)[-1]
        if (queue.lane.stage is not Stage.ENCODER or not job.begun) and _is_closed(
            core, queue.lane
        ):
            core.agenda.blocked[queue.lane] = queue.lane.flow.changes
            self._over = True
            return None
        source = job.source
        holder = core.workers.get(source.worker) if source is not None else None
        if source is None or (holder is not None and holder.connected):
            return job
        # Nobody can be told to send now: the holder comes back, or is lost, shortly.
        core.jobs.dequeue(job)
        core.enqueue(job, delay=_SOURCE_RETRY_SECONDS)
        return None

    def _choose(self, job: JobEntry) -> tuple[JobEntry, Member] | None:
        """Return who gets whom; None: the job had better wait."""
        decision = self._decision
        avoided = decision.avoided(job)
        best = None if avoided is None else decision.best(job, avoided)
        if avoided is None or best is None:
            self._queue.wary = True
            return None
        if decision.many:
            places = decision.places()
            return (job, best) if places < 1.0 else self._choose_behind(places)
        sooner = decision.sooner(avoided)
        if sooner is None:
            return job, best
        if self._position + 1 == self._lookahead:
            return self._choose_behind(decision.places())
        decision.wait_for(sooner)
        return None

    def _choose_behind(self, places: float) -> tuple[JobEntry, Member] | None:
        """Give what a job does not want to one behind it, if so many wait that they cannot all."""
        if self._queue.items.size <= places:
            self._queue.enough = places
            self._over = True
            return None
        job = self._job_at(max(self._position, min(int(places), self._lookahead - 1)))
        if job is None:
            return None
        avoided = self._decision.avoided(job)
        best = None if avoided is None else self._decision.best(job, avoided)
        return None if best is None else (job, best)


def _open_lanes(core: Core) -> None:
    """Have those lanes looked at behind which there is room again."""
    blocked = core.agenda.blocked
    for lane, found in list(blocked.items()):
        if lane.flow.changes == found:
            continue
        if _is_closed(core, lane):
            blocked[lane] = lane.flow.changes
        else:
            del blocked[lane]
            core.agenda.mark_lane(lane)


def _is_closed(core: Core, lane: Lane) -> bool:
    """Whether no more jobs may be assigned in a stage, or in the first: none may be begun."""
    if lane.stage is Stage.DIT:
        return _is_held_back(core, lane.flow)
    return lane.stage is Stage.ENCODER and _is_full(core, lane.flow)


def _is_held_back(core: Core, flow: Flow) -> bool:
    """Whether so many jobs wait for decoders that DiTs must not make more."""
    room = core.settings.waiting_per_slot * flow.lane(Stage.DECODER).slots
    return flow.before_decoders >= max(_MIN_WAITING, room)


def _is_full(core: Core, flow: Flow) -> bool:
    """Whether no further job may be begun."""
    room = core.settings.waiting_per_slot * flow.lane(Stage.DIT).slots
    if flow.before_dits >= max(_MIN_WAITING, room):
        return True
    limit = core.settings.max_in_flight
    return bool(limit) and flow.in_flight >= limit


def _watch_version(core: Core, queue: Queue) -> None:
    """Start or stop the clock after which jobs of a version that takes no work start again."""
    missing = not queue.lane.is_ready(queue.version)
    if missing is (queue.missing_since is not None):
        return
    if missing:
        queue.missing_since = core.now
        _look_at_version(core, queue)
    else:
        queue.missing_since = None
        core.clear_timer(TimerKind.VERSION, _timer_name(queue))


def _look_at_version(core: Core, queue: Queue) -> None:
    core.set_timer(TimerKind.VERSION, _timer_name(queue), core.now + core.settings.version_patience)


def _timer_name(queue: Queue) -> str:
    return f"{int(queue.lane.stage)}\n{queue.lane.flow.pipeline}\n{queue.version}"


def on_version_timer(core: Core, name: str) -> None:
    """Start jobs again whose model version has not come back, where there is another version."""
    number, pipeline, version = name.split("\n", 2)
    flow = core.flows.get(pipeline)
    lane = None if flow is None else flow.lane(Stage(int(number)))
    queue = None if lane is None else lane.queues.get(version)
    if lane is None or queue is None:
        return
    core.settle()
    since, queue.missing_since = queue.missing_since, None
    core.agenda.mark(queue)
    if since is None or not queue.items.size or lane.is_ready(version):
        return
    if not lane.is_ready("") or core.now < since + _patience(core, lane, version):
        queue.missing_since = since
        _look_at_version(core, queue)
        return
    for *_, job in list(queue.items):
        core.jobs.dequeue(job)
        for stage in list(job.held):
            core.drop_held(job, stage, release=True)
        job.version = ""
        core.resume(job, f"no worker of model version {version} takes work any more")


def _patience(core: Core, lane: Lane, version: str) -> float:
    """Return how long jobs wait for a version: longer while a worker of it may get ready."""
    place = (lane.flow.pipeline, version, WorkerState.LOADING)
    for worker in core.workers:
        info = worker.info
        if lane.stage in info.stages and (info.pipeline, info.version, info.state) == place:
            return max(core.settings.loading_patience, core.settings.version_patience)
    return core.settings.version_patience
