"""Which waiting job goes to which worker, and when to look again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from disagfusion.dispatch.core import Core, TimerKind
from disagfusion.dispatch.messages import elsewhere
from disagfusion.dispatch.tables import Assignment, JobEntry, WaitingKey, WorkerEntry
from disagfusion.jobs.model import JobState, Stage, StageStatus

_SOURCE_RETRY_SECONDS = 0.25
_MIN_WAITING = 2
_TOLERANCE = 1e-3
"""Seconds; far above the resolution of Unix time in a float, so that looking again at the
predicted time always finds the prediction come true."""
_NEGLIGIBLE_TRANSFER = 0.1
"""Of the time that the stage takes: milliseconds do not keep equal workers from taking turns."""


@dataclass(slots=True)
class _Candidate:
    """A worker with a free grant, and what it has to do before it could begin another job.

    `virtual` is the time of better-placed jobs that were left waiting for it in this decision.
    """

    worker: WorkerEntry
    remaining: float
    known: bool
    virtual: float = 0.0

    def eligible(self, horizon: float) -> bool:
        if not self.worker.grants:
            return False
        idle = not self.worker.assignments
        return idle or not self.known or self.remaining <= horizon + _TOLERANCE


def schedule(core: Core) -> float | None:
    """Assign all that should be assigned now.

    Later stages come first, so that what was begun is finished and held memory stays small.

    Returns:
        When a decision may turn out otherwise without any event, or None.
    """
    look_again = math.inf
    for key in core.jobs.queues():
        look_again = min(look_again, _serve(core, key))
    return None if look_again == math.inf else look_again


def remaining_seconds(core: Core, job: JobEntry, assignment: Assignment) -> tuple[float, bool]:
    """Predict how long an assignment still takes, and whether that is known."""
    service = core.estimates.service(assignment.worker, assignment.stage, job.spec.cost_key)
    if assignment.started_at is None:
        return service.seconds, service.known
    steps = assignment.step - assignment.first_step
    if steps > 0 and assignment.num_inference_steps:
        per_step = (assignment.step_at - assignment.started_at) / steps
        left = max(0, assignment.num_inference_steps - assignment.step) * per_step
        return max(0.0, left - (core.now - assignment.step_at)), True
    return max(0.0, service.seconds - (core.now - assignment.started_at)), service.known


def _serve(core: Core, key: WaitingKey) -> float:
    stage, pipeline, version = key
    _watch_version(core, key)
    offering = [
        worker
        for worker in core.workers.of_stage(pipeline, stage, version)
        if worker.grants and worker.ready
    ]
    if not offering or _held_back(core, stage, pipeline):
        return math.inf
    if not version:
        offering = _complete_versions(core, pipeline, offering)
    horizon = max(core.settings.prefetch_horizon, 2.0 * core.estimates.transfer())
    candidates = [_candidate(core, worker) for worker in offering]
    passed_over: list[JobEntry] = []
    while any(candidate.eligible(horizon) for candidate in candidates):
        job = _next(core, key, passed_over)
        if job is None:
            break
        choice = _choose(core, job, candidates, horizon)
        if choice is None:
            passed_over.append(job)
            continue
        own = core.estimates.service(choice.worker.name, stage, job.spec.cost_key)
        core.assign(job, choice.worker)
        choice.remaining += own.seconds
        choice.known = choice.known and own.known
        if _held_back(core, stage, pipeline):
            break
    for job in passed_over:
        core.jobs.enqueue(job)
    if not core.jobs.queue(key):
        return math.inf
    return min(
        (
            core.now + candidate.remaining - horizon
            for candidate in candidates
            if candidate.worker.grants and not candidate.eligible(horizon)
        ),
        default=math.inf,
    )


def _next(core: Core, key: WaitingKey, passed_over: list[JobEntry]) -> JobEntry | None:
    """Take the next job that may be assigned out of a queue."""
    queue = core.jobs.queue(key)
    while len(passed_over) < core.settings.lookahead:
        first = queue.peek()
        job = core.jobs.get(first[0]) if first else None
        if job is None or (not job.begun and _full(core, job.spec.pipeline)):
            return None
        core.jobs.dequeue(job)
        source = job.source
        holder = core.workers.get(source.worker) if source else None
        if source is None or (holder is not None and holder.connected):
            return job
        # Nobody can be told to send now: the holder comes back, or is lost, shortly.
        core.enqueue(job, delay=_SOURCE_RETRY_SECONDS)
    return None


def _choose(
    core: Core, job: JobEntry, candidates: list[_Candidate], horizon: float
) -> _Candidate | None:
    """Pick the candidate that would finish first, or None when the job had better wait."""
    pool = [candidate for candidate in candidates if candidate.worker.name not in job.avoid]
    if not pool:
        pool = [candidate for candidate in candidates if not job.avoid[candidate.worker.name]]
    if not pool:
        if elsewhere(core, job):
            return None
        pool = candidates
    best: _Candidate | None = None
    best_rank = (math.inf, 0)
    best_known = False
    for candidate in pool:
        if not candidate.eligible(horizon):
            continue
        own = core.estimates.service(candidate.worker.name, job.stage, job.spec.cost_key)
        begin = _begin(core, job, candidate.worker, candidate.remaining, own.seconds)
        rank = (begin + own.seconds, candidate.worker.last_assigned)
        if rank < best_rank:
            best, best_rank = candidate, rank
            best_known = own.known and candidate.known
    if best is None or not best_known:
        return best
    for candidate in pool:
        own = core.estimates.service(candidate.worker.name, job.stage, job.spec.cost_key)
        if candidate.eligible(horizon) or not (candidate.known and own.known):
            continue
        # A busy but faster worker is worth waiting for, behind those who wait for it already.
        free = candidate.remaining + candidate.virtual
        begin = _begin(core, job, candidate.worker, free, own.seconds)
        if begin + own.seconds < best_rank[0]:
            candidate.virtual += own.seconds
            return None
    return best


def _candidate(core: Core, worker: WorkerEntry) -> _Candidate:
    remaining, known = 0.0, True
    for job_id, assignment in worker.assignments.items():
        job = core.jobs.get(job_id)
        assert job is not None, "an assignment ends with its job"
        seconds, certain = remaining_seconds(core, job, assignment)
        remaining += seconds
        known = known and certain
    return _Candidate(worker, remaining, known)


def _begin(
    core: Core, job: JobEntry, worker: WorkerEntry, free: float, service_seconds: float
) -> float:
    """Predict when a worker that is free then can begin a job: its input must be there."""
    if job.source is None:
        return free
    link = core.links.estimate(job.source.worker, worker.name, core.now)
    arrival = link.seconds(job.source.nbytes)
    if arrival < _NEGLIGIBLE_TRANSFER * service_seconds:
        return free
    return max(free, arrival)


def _held_back(core: Core, stage: Stage, pipeline: str) -> bool:
    """Whether so many jobs wait for the next stage that this one must not make more."""
    if stage is not Stage.DIT:
        return False
    room = core.settings.waiting_per_slot * core.workers.slots(pipeline, Stage.DECODER)
    waiting = core.jobs.count(pipeline, JobState.DECODING, StageStatus.WAITING)
    return waiting >= max(_MIN_WAITING, room)


def _full(core: Core, pipeline: str) -> bool:
    """Whether no further job may be begun."""
    count = core.jobs.count
    room = core.settings.waiting_per_slot * core.workers.slots(pipeline, Stage.DIT)
    ahead = count(pipeline, JobState.ENCODING)
    ahead += count(pipeline, JobState.DENOISING, StageStatus.WAITING)
    if ahead >= max(_MIN_WAITING, room):
        return True
    limit = core.settings.max_in_flight
    states = (JobState.ENCODING, JobState.DENOISING, JobState.DECODING)
    return bool(limit) and sum(count(pipeline, state) for state in states) >= limit


def _complete_versions(core: Core, pipeline: str, offering: list[WorkerEntry]) -> list[WorkerEntry]:
    """Prefer workers whose version has all stages: the first assignment pins the version."""
    versions = [
        {worker.info.version for worker in core.workers.of_stage(pipeline, stage)}
        for stage in Stage
    ]
    complete = set.intersection(*versions)
    return [worker for worker in offering if worker.info.version in complete] or offering


def _watch_version(core: Core, key: WaitingKey) -> None:
    """Start or stop the clock after which jobs of a vanished version start again."""
    stage, pipeline, version = key
    if not version:
        return
    name = version_timer_name(key)
    if core.workers.of_stage(pipeline, stage, version):
        core.clear_timer(TimerKind.VERSION, name)
    elif (TimerKind.VERSION, name) not in core.timers:
        core.set_timer(TimerKind.VERSION, name, core.now + core.settings.version_patience)


def version_timer_name(key: WaitingKey) -> str:
    """Return the name of a queue's version timer."""
    stage, pipeline, version = key
    return f"{int(stage)}\n{pipeline}\n{version}"


def on_version_timer(core: Core, name: str) -> None:
    """Start jobs again whose model version has not come back, where there is another version."""
    number, pipeline, version = name.split("\n", 2)
    key = (Stage(int(number)), pipeline, version)
    if core.workers.of_stage(pipeline, key[0], version):
        return
    if not any(worker.ready for worker in core.workers.of_stage(pipeline, key[0])):
        return
    for job_id in list(core.jobs.queue(key)):
        job = core.jobs.get(job_id)
        assert job is not None, "only unfinished jobs wait"
        core.jobs.dequeue(job)
        for stage in list(job.held):
            core.drop_held(job, stage, release=True)
        job.version = ""
        core.resume(job, f"no worker has model version {version} any more")
