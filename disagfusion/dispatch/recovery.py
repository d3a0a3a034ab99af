"""Workers that come and go, and a gateway that comes back."""

from __future__ import annotations

from disagfusion.dispatch.core import Core
from disagfusion.dispatch.events import (
    HandedOver,
    HeldOutput,
    JobRecovered,
    RunningAssignment,
    WorkerConnected,
    WorkerDisconnected,
    WorkerLost,
    WorkerStateChanged,
)
from disagfusion.dispatch.messages import finish_stage, lose_held
from disagfusion.dispatch.state import TimerKind
from disagfusion.dispatch.tables import JobEntry
from disagfusion.dispatch.workers import WorkerEntry
from disagfusion.jobs.model import STAGE_STATES, JobState, Stage, StageStatus


def on_recovered(core: Core, event: JobRecovered) -> None:
    """Take over an unfinished job from the store.

    Some worker may be at work on it: what is stored may be a few changes behind what was told. A
    job that waits needs only its input found; one that does not gives its worker the grace to say
    so.
    """
    if core.jobs.get(event.job.job_id) is not None:
        return
    job = core.jobs.add(event.job)
    job.attempt, job.version, job.failures = event.attempt, event.version, event.failures
    job.doubtful, job.contested = True, event.contested
    core.jobs.place(job, event.state, event.stage_status)
    if event.job.deadline is not None:
        core.set_timer(TimerKind.DEADLINE, job.job_id, event.job.deadline)
    if event.state in (JobState.QUEUED, JobState.ENCODING) and (
        event.stage_status is StageStatus.WAITING
    ):
        core.enqueue(job)
        return
    job.recovering = True
    if (TimerKind.RECOVERY, "") not in core.timers:
        core.set_timer(TimerKind.RECOVERY, "", core.now + core.settings.recovery_grace)


def end_recovery(core: Core) -> None:
    """Dispatch anew what no worker has claimed."""
    core.clear_timer(TimerKind.RECOVERY, "")
    for job in [job for job in core.jobs if job.recovering]:
        job.recovering = False
        if job.status is StageStatus.WAITING and job.source is not None:
            core.enqueue(job)
        else:
            core.resume(job, "no worker knew of this attempt after a restart of the gateway")


def on_connected(core: Core, event: WorkerConnected) -> None:
    """Bring a worker's account and our own together.

    Outputs first, since a finished stage is no longer running.
    """
    info = event.worker
    worker = core.workers.get(info.name)
    if worker is not None and worker.info.incarnation != info.incarnation:
        lose_worker(core, worker, "it was started anew")
        worker = None
    if worker is None:
        worker = WorkerEntry(info)
    worker.connected = True
    worker.grants = dict.fromkeys(event.grant_ids)
    worker.used.clear()
    core.workers.put(worker, info)
    core.touch(worker)

    listed = {held.output for held in event.held}
    for held in event.held:
        _claim_held(core, worker, held)
    for job_id, stage in sorted(worker.holding):
        job = core.jobs.get(job_id)
        known = job.held.get(stage) if job else None
        if job is not None and known is not None and known.key not in listed:
            lose_held(core, job, known, f"{worker.name} does not hold the output any more")

    strange = [claim for claim in event.running if not _adopt_running(core, worker, claim)]
    claimed = {(claim.job_id, claim.attempt) for claim in event.running}
    for job_id, assignment in list(worker.assignments.items()):
        if (job_id, assignment.attempt) not in claimed:
            _void(core, worker, job_id, "the assignment was lost with the connection")
    for claim in strange:
        core.refuse_work(worker, claim.job_id, claim.attempt, "WorkerHello.running")
    _doubt_transfers(core, worker)


def on_handed_over(core: Core, event: HandedOver) -> None:
    """Take over what a worker has of another gateway, outputs first as in `on_connected`."""
    worker = core.workers.get(event.worker, event.incarnation)
    if worker is None:
        return
    for held in event.held:
        _claim_held(core, worker, held)
    for claim in event.running:
        if not _adopt_running(core, worker, claim):
            core.refuse_work(worker, claim.job_id, claim.attempt, "HandedOver.running")
    _doubt_transfers(core, worker)


def on_disconnected(core: Core, event: WorkerDisconnected) -> None:
    """Give nothing new to a worker that cannot be reached."""
    worker = core.workers.get(event.worker, event.incarnation)
    if worker is not None:
        worker.connected = False
        worker.grants.clear()
        core.touch(worker)


def on_lost(core: Core, event: WorkerLost) -> None:
    """Give a worker up."""
    worker = core.workers.get(event.worker, event.incarnation)
    if worker is not None:
        lose_worker(core, worker, event.reason)


def on_state_changed(core: Core, event: WorkerStateChanged) -> None:
    """Take note of a worker's new description."""
    worker = core.workers.get(event.worker.name, event.worker.incarnation)
    if worker is not None:
        core.workers.put(worker, event.worker)
        core.touch(worker)


def lose_worker(core: Core, worker: WorkerEntry, reason: str) -> None:
    """Take back all that a worker had: what it held first, so that nothing resumes from it."""
    core.workers.remove(worker)
    message = f"{worker.name} was lost: {reason}".rstrip(": ")
    held = [
        (job, job.held.pop(stage))
        for job_id, stage in sorted(worker.holding)
        if (job := core.jobs.get(job_id)) is not None and stage in job.held
    ]
    for job_id in list(worker.assignments):
        _void(core, worker, job_id, message)
    for job, output in held:
        if core.jobs.get(job.job_id) is job and output.key.stage not in job.held:
            lose_held(core, job, output, message)


def _void(core: Core, worker: WorkerEntry, job_id: str, message: str) -> None:
    """Take an assignment back from a worker that does not have it any more."""
    job = core.jobs.get(job_id)
    assert job is not None, "an assignment ends with its job"
    assert job.assignment is not None, "tables agree"
    started = job.assignment.started_at is not None
    core.note_outcome(job, job.assignment, None, "worker lost")
    core.unassign(job, cancel=False)
    core.end_attempt(job, "WORKER_LOST", message, counted=started)


def _claim_held(core: Core, worker: WorkerEntry, held: HeldOutput) -> None:
    key = held.output
    job = core.jobs.get(key.job_id)
    if job is not None and _accept_held(core, job, worker, held):
        return
    core.refuse(worker.name, key.job_id, key.attempt, "WorkerHello.held")
    core.release(worker, key.job_id, key.stage, key.attempt)


def _accept_held(core: Core, job: JobEntry, worker: WorkerEntry, held: HeldOutput) -> bool:
    """Make use of an output if the job can."""
    key = held.output
    known = job.held.get(key.stage)
    if known is not None:
        return (known.worker, known.key) == (worker.name, key)
    if job.version not in ("", worker.info.version) or not job.begun:
        return False
    if key.stage is job.stage:
        if job.assignment is None:
            usable = not job.fetching and key.attempt <= job.attempt
        else:
            usable = job.assigned_to(worker, key.stage, key.attempt)
        if usable:
            job.version = job.version or worker.info.version
            finish_stage(core, job, worker, held)
        return usable
    if key.stage + 1 != job.stage or key.attempt > job.attempt:
        return False
    core.hold(job, worker, held)
    if held.record is not None:
        job.records.setdefault((key.stage, key.attempt), held.record)
    if job.recovering and job.status is StageStatus.WAITING:
        job.recovering = False
        core.enqueue(job)
    return True


def _adopt_running(core: Core, worker: WorkerEntry, claim: RunningAssignment) -> bool:
    """Take over what a worker says it runs, if that is what it was assigned."""
    job = core.jobs.get(claim.job_id)
    if job is None:
        return False
    if job.assignment is None and _adoptable(job, worker, claim):
        if job.status is StageStatus.WAITING:
            core.jobs.dequeue(job)
            job.version = worker.info.version
            core.move(job, STAGE_STATES[claim.stage], StageStatus.TRANSFERRING)
        adopted = core.give(job, worker, received=claim.stage is Stage.ENCODER)
        adopted.first_step = claim.step
    if not job.assigned_to(worker, claim.stage, claim.attempt):
        return False
    assignment = job.assignment
    assert assignment is not None, "just compared"
    if claim.status is StageStatus.RUNNING:
        core.mark_started(job)
        assignment.step = max(assignment.step, claim.step)
        assignment.num_inference_steps = claim.num_inference_steps
    elif claim.status is StageStatus.WAITING:
        core.mark_received(job)
    return True


def _adoptable(job: JobEntry, worker: WorkerEntry, claim: RunningAssignment) -> bool:
    return (
        job.doubtful
        and not job.fetching
        and (job.stage, job.attempt) == (claim.stage, claim.attempt)
        and job.version in ("", worker.info.version)
    )


def _doubt_transfers(core: Core, worker: WorkerEntry) -> None:
    """Wait less long for inputs that may never have been asked for.

    A SendOutput can be lost with a sender's connection, and an adopted assignment's may never
    have left the gateway that died.
    """
    doubtful = {job_id for job_id, _ in worker.holding} | set(worker.assignments)
    for job_id in sorted(doubtful):
        job = core.jobs.get(job_id)
        if job is not None and job.assignment is not None and not job.assignment.received:
            at = core.now + core.settings.ambiguous_transfer_timeout
            core.set_timer(TimerKind.TRANSFER, job_id, at)
