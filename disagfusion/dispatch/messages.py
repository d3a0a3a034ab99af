"""What follows from what workers say about assignments and outputs."""

from __future__ import annotations

from dataclasses import replace

from disagfusion.dispatch.actions import Publish, Quarantine, ReturnGrants
from disagfusion.dispatch.core import Core
from disagfusion.dispatch.events import (
    GrantsOffered,
    GrantsRecalled,
    HeldOutput,
    InputReceived,
    OutputSent,
    SendFailed,
    StageDone,
    StageFailed,
    StageStarted,
    StepCompleted,
)
from disagfusion.dispatch.tables import Assignment, Blame, Held, JobEntry
from disagfusion.dispatch.workers import WorkerEntry
from disagfusion.jobs.model import (
    STAGE_STATES,
    FailureKind,
    JobError,
    JobState,
    Output,
    Progress,
    Stage,
    StageStatus,
)

_SETBACKS = frozenset({FailureKind.REFUSED, FailureKind.CANCELLED, FailureKind.INPUT_LOST})
"""Failures that say nothing about the job."""

_STRIKES = frozenset(
    {
        FailureKind.OUT_OF_MEMORY,
        FailureKind.DEVICE_ERROR,
        FailureKind.NON_FINITE,
        FailureKind.INTERNAL,
    }
)
"""Failures that speak against a worker when others succeed. A lost engine is not among them: it
has been replaced already."""


def on_grants(core: Core, event: GrantsOffered) -> None:
    """A worker has room for more."""
    worker = core.workers.get(event.worker, event.incarnation)
    if worker is not None and worker.connected:
        first = not worker.grants
        worker.offer(event.grant_ids)
        if first:
            core.touch(worker)


def on_recalled(core: Core, event: GrantsRecalled) -> None:
    """Another gateway has use for grants: give back those that are not used."""
    worker = core.workers.get(event.worker, event.incarnation)
    if worker is None or not worker.connected:
        return
    unused = tuple(grant for grant in event.grant_ids if grant in worker.grants)
    for grant in unused:
        del worker.grants[grant]
    if unused:
        core.actions.append(ReturnGrants(worker.name, worker.info.incarnation, unused))
        core.touch(worker)


def on_received(core: Core, event: InputReceived) -> None:
    """The input is in its slot."""
    found = _current(core, event, None)
    if found is None:
        return
    job, assignment = found
    if not assignment.received:
        core.observe_transfer(job, event.worker, event.size_bytes, event.receive_seconds)
    core.mark_received(job)


def on_started(core: Core, event: StageStarted) -> None:
    """The engine has begun."""
    found = _current(core, event, event.stage)
    if found is not None:
        core.mark_started(found[0])


def on_step(core: Core, event: StepCompleted) -> None:
    """One more denoising step is done."""
    found = _current(core, event, None)
    if found is None:
        return
    job, assignment = found
    if event.step <= assignment.step:
        return
    core.mark_started(job)
    assignment.step, assignment.step_at = event.step, core.now
    assignment.num_inference_steps = event.num_inference_steps
    core.follow_steps(job, assignment)
    progress = Progress(assignment.stage, event.step, event.num_inference_steps)
    core.actions.append(Publish(job.job_id, job.state, job.status, job.attempt, progress))


def on_done(core: Core, event: StageDone) -> None:
    """The output of a stage is held."""
    key = event.held.output
    worker = core.workers.get(event.worker, event.incarnation)
    job = core.jobs.get(key.job_id)
    if job is not None and worker is not None:
        if job.assigned_to(worker, key.stage, key.attempt):
            finish_stage(core, job, worker, event.held)
            return
        known = job.held.get(key.stage)
        if known is not None and known.worker == worker.name:
            if known.key == key:
                return
            if known.key.attempt <= key.attempt:
                core.refuse(event.worker, key.job_id, key.attempt, "StageDone")
                return
    core.refuse(event.worker, key.job_id, key.attempt, "StageDone")
    if worker is not None:
        core.release(worker, key.job_id, key.stage, key.attempt)


def finish_stage(core: Core, job: JobEntry, worker: WorkerEntry, held: HeldOutput) -> None:
    """Take a stage's output as the job's and move on.

    Args:
        core: The state.
        job: Assigned to this worker, or unassigned in the stage whose output this is.
        worker: The holder.
        held: The output.
    """
    stage = job.stage
    assignment = job.assignment or Assignment(worker, stage, held.output.attempt, received=True)
    _observe_service(core, job, assignment, held)
    core.unassign(job, cancel=False)
    core.jobs.dequeue(job)
    core.stop_retrying(job)
    job.recovering = False
    if stage is Stage.DECODER and not _complete(held.media):
        core.note_outcome(job, assignment, held.record, "internal")
        core.release(worker, job.job_id, stage, held.output.attempt)
        message = f"{worker.name}: the list of results is empty or names one twice"
        job.avoid[worker.name] = True
        core.end_attempt(job, FailureKind.INTERNAL.name, message, counted=True)
        return
    core.note_outcome(job, assignment, held.record, "done")
    job.avoid.clear()
    core.hold(job, worker, held)
    _strike(core, job, stage, worker.name)
    if stage is Stage.DECODER:
        core.fetch(job)
        return
    core.move(job, STAGE_STATES[Stage(stage + 1)], StageStatus.WAITING)
    if stage is Stage.DIT:
        core.drop_held(job, Stage.ENCODER, release=True)
    core.enqueue(job)


def on_failed(core: Core, event: StageFailed) -> None:
    """A stage did not come to its end."""
    job = core.jobs.get(event.job_id)
    worker = core.workers.get(event.worker, event.incarnation)
    if (
        job is None
        or worker is None
        or not job.assigned_to(worker, event.stage, event.attempt)
        or job.assignment is None
    ):
        # The expected answer to a cancellation is not news.
        if event.kind is not FailureKind.CANCELLED:
            core.refuse(event.worker, event.job_id, event.attempt, "StageFailed")
        return
    kind = FailureKind.INTERNAL if event.kind is FailureKind.UNSPECIFIED else event.kind
    assignment = job.assignment
    core.note_outcome(job, assignment, event.record, kind.name.lower())
    core.unassign(job, cancel=False)
    message = f"{worker.name}: {kind.name.lower()}: {event.message}".rstrip(": ")
    if kind is FailureKind.INVALID_ARGUMENT:
        core.end(job, JobState.FAILED, JobError(kind.name, event.message or message))
        return
    job.avoid[worker.name] = kind not in _SETBACKS
    if kind in _STRIKES:
        job.blamed.append(Blame(worker.name, worker.info.incarnation, event.stage, kind))
    if kind is FailureKind.INPUT_LOST:
        lose_transfer(core, job, message)
        return
    counted = kind not in _SETBACKS
    if kind is FailureKind.ENGINE_LOST:
        counted = assignment.started_at is not None
    delay = 0.0 if counted and elsewhere(core, job) else backoff(core, job)
    core.end_attempt(job, kind.name, message, counted=counted, delay=delay)


def lose_transfer(core: Core, job: JobEntry, message: str) -> None:
    """A hand-over to an assignment, taken back before, did not take place."""
    source = job.source
    if source is not None:
        source.transfer_failures += 1
        if source.transfer_failures >= core.settings.max_transfer_failures:
            core.drop_held(job, source.key.stage, release=True)
    delay = backoff(core, job)
    core.end_attempt(job, FailureKind.INPUT_LOST.name, message, counted=False, delay=delay)


def on_transfer_timeout(core: Core, job: JobEntry) -> None:
    """An assignment's input has not arrived in time."""
    assignment = job.assignment
    if assignment is None or assignment.received:
        return
    core.note_outcome(job, assignment, None, "input_lost")
    job.avoid.setdefault(assignment.worker.name, False)
    core.unassign(job, cancel=True)
    lose_transfer(core, job, f"{assignment.worker.name}: the input did not arrive in time")


def on_sent(core: Core, event: OutputSent) -> None:
    """An output has arrived; the sender's record gets to know how."""
    job = core.jobs.get(event.output.job_id)
    if job is None or core.workers.get(event.worker, event.incarnation) is None:
        return
    record = job.records.get((event.output.stage, event.output.attempt))
    if record is None or record.worker != event.worker:
        return
    job.note(
        replace(
            record,
            send_seconds=event.send_seconds,
            bytes_out=event.size_bytes or record.bytes_out,
            transport=event.transport,
        )
    )


def on_send_failed(core: Core, event: SendFailed) -> None:
    """An output could not be handed over."""
    job = core.jobs.get(event.output.job_id)
    worker = core.workers.get(event.worker, event.incarnation)
    held = job.held.get(event.output.stage) if job else None
    if (
        job is None
        or worker is None
        or held is None
        or (held.worker, held.key) != (worker.name, event.output)
    ):
        core.refuse(event.worker, event.output.job_id, event.attempt, "SendFailed")
        return
    message = f"{worker.name}: output not sent: {event.message}".rstrip(": ")
    if event.output_lost:
        lose_held(core, job, held, message)
        return
    assignment = job.assignment
    if assignment is None or assignment.received or assignment.attempt != event.attempt:
        return
    core.note_outcome(job, assignment, None, "input_lost")
    job.avoid.setdefault(assignment.worker.name, False)
    core.unassign(job, cancel=True)
    lose_transfer(core, job, message)


def lose_held(core: Core, job: JobEntry, held: Held, message: str) -> None:
    """An output that the job had is gone: make it again, unless it is not needed any more."""
    stage = held.key.stage
    core.drop_held(job, stage, release=False)
    if stage is Stage.DECODER and job.stage is Stage.DECODER and job.fetching:
        core.end_attempt(job, "RESULT_LOST", message, counted=False)
        return
    if job.recovering or stage + 1 != job.stage:
        return
    assignment = job.assignment
    if job.fetching or (assignment is not None and assignment.received):
        return
    if assignment is not None:
        core.note_outcome(job, assignment, None, "input_lost")
        core.unassign(job, cancel=True)
    core.end_attempt(job, FailureKind.INPUT_LOST.name, message, counted=False)


def backoff(core: Core, job: JobEntry) -> float:
    """Return how long a job waits before it is tried again, in seconds."""
    settings = core.settings
    tries = min(job.failures + job.setbacks, 32)
    return min(settings.max_backoff, settings.first_backoff * 2.0**tries)


def elsewhere(core: Core, job: JobEntry) -> bool:
    """Whether a worker that has not failed the job's stage could take it, sooner or later."""
    groups = list(job.lane.of_version(job.version))
    ready = sum(group.ready for group in groups)
    for name in job.avoid:
        worker = core.workers.get(name)
        member = worker.members.get(job.stage) if worker is not None and worker.ready else None
        ready -= member is not None and member.group in groups
    return ready > 0


def _current(
    core: Core, event: InputReceived | StageStarted | StepCompleted, stage: Stage | None
) -> tuple[JobEntry, Assignment] | None:
    """Return what a message is about, or refuse it and stop the work that it speaks of."""
    job = core.jobs.get(event.job_id)
    worker = core.workers.get(event.worker, event.incarnation)
    if worker is None:
        core.refuse(event.worker, event.job_id, event.attempt, type(event).__name__)
        return None
    if job is not None and job.assignment is not None:
        if job.assigned_to(worker, stage, event.attempt):
            return job, job.assignment
    core.refuse_work(worker, event.job_id, event.attempt, type(event).__name__)
    return None


def _observe_service(core: Core, job: JobEntry, assignment: Assignment, held: HeldOutput) -> None:
    if held.record is not None and held.record.compute_seconds > 0.0:
        seconds = held.record.compute_seconds
    elif assignment.started_at is not None:
        seconds = core.now - assignment.started_at
    else:
        return
    core.observe(job, assignment, seconds)


def _strike(core: Core, job: JobEntry, stage: Stage, succeeded: str) -> None:
    """Hold against workers that they failed a stage which another has done."""
    for blame in [blame for blame in job.blamed if blame.stage is stage]:
        job.blamed.remove(blame)
        worker = core.workers.get(blame.worker, blame.incarnation)
        if worker is None or worker.name == succeeded:
            continue
        horizon = core.now - core.settings.strike_seconds
        worker.strikes[job.job_id] = core.now
        worker.strikes = {name: at for name, at in worker.strikes.items() if at > horizon}
        if len(worker.strikes) >= core.settings.strikes and not worker.condemned:
            worker.condemned = True
            core.touch(worker)
            jobs = ", ".join(sorted(worker.strikes))
            reason = f"failed jobs that succeeded elsewhere: {jobs} (last: {blame.kind.name})"
            core.actions.append(Quarantine(worker.name, worker.info.incarnation, reason))


def _complete(media: tuple[Output, ...]) -> bool:
    return bool(media) and len({output.index for output in media}) == len(media)
