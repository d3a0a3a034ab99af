"""The moves that all parts of the dispatcher are made of."""

from __future__ import annotations

from dataclasses import replace

from disagfusion.dispatch.actions import (
    Assign,
    CancelOnWorker,
    CompleteJob,
    DiscardResult,
    FetchResult,
    RefuseStale,
    Release,
    SaveTransition,
    Send,
)
from disagfusion.dispatch.backlog import mean_seconds
from disagfusion.dispatch.events import HeldOutput
from disagfusion.dispatch.state import State, TimerKind
from disagfusion.dispatch.tables import Assignment, Held, JobEntry
from disagfusion.dispatch.workers import WorkerEntry
from disagfusion.jobs.model import (
    STAGE_STATES,
    Completion,
    JobError,
    JobState,
    Output,
    Stage,
    StageRecord,
    StageStatus,
    Transition,
)


class Core(State):
    """The moves that keep tables, timers and the list of actions in step."""

    def move(
        self,
        job: JobEntry,
        state: JobState,
        status: StageStatus,
        *,
        attempt: int | None = None,
        message: str = "",
        error: JobError | None = None,
    ) -> None:
        """Change a job's state, durably."""
        transition = Transition(
            job_id=job.job_id,
            from_state=job.state,
            from_attempt=job.attempt,
            state=state,
            stage_status=status,
            attempt=job.attempt if attempt is None else attempt,
            time=self.now,
            version=job.version,
            failures=job.failures,
            message=message,
            records=job.take_unsaved(),
            error=error,
        )
        self.actions.append(SaveTransition(transition))
        self.jobs.place(job, state, status)
        job.attempt = transition.attempt

    def enqueue(self, job: JobEntry, *, delay: float = 0.0) -> None:
        """Let a job wait for a worker of its stage, now or after a delay."""
        self.stop_retrying(job)
        if delay > 0.0:
            job.retrying = True
            self.set_timer(TimerKind.RETRY, job.job_id, self.now + delay)
        else:
            rank = 0.0
            if self.settings.queue_order == "shortest":
                rank = mean_seconds(job.lane, self.estimates, job.spec)
            elif self.settings.queue_order == "arrival":
                rank = self.now
            self.jobs.enqueue(job, rank)

    def stop_retrying(self, job: JobEntry) -> None:
        """Have a job wait for no time."""
        if job.retrying:
            job.retrying = False
            self.clear_timer(TimerKind.RETRY, job.job_id)

    def assign(self, job: JobEntry, worker: WorkerEntry) -> None:
        """Give a job's stage to a worker, with its oldest grant."""
        stage, source = job.stage, job.source
        grant = worker.take_grant()
        self.jobs.dequeue(job)
        job.version = worker.info.version
        # One stage of one attempt is told to one worker, whichever gateway tells it.
        attempt = job.attempt + 1 if job.doubtful else job.attempt
        self.move(job, STAGE_STATES[stage], StageStatus.TRANSFERRING, attempt=attempt)
        self.give(job, worker, received=source is None)
        key = source.key if source else None
        self.actions.append(
            Assign(
                worker.name,
                worker.info.incarnation,
                job.job_id,
                job.attempt,
                stage,
                grant,
                key,
            )
        )
        if source is None:
            return
        holder = self.workers.get(source.worker)
        assert holder is not None, "what a lost worker held is forgotten with it"
        self.actions.append(
            Send(
                holder.name,
                holder.info.incarnation,
                source.key,
                job.attempt,
                grant,
                worker.name,
                worker.info.incarnation,
            )
        )
        self.set_timer(TimerKind.TRANSFER, job.job_id, self.now + self.settings.transfer_timeout)

    def give(self, job: JobEntry, worker: WorkerEntry, *, received: bool) -> Assignment:
        """Take note that a worker has a job's current stage and attempt."""
        self.assignments += 1
        worker.last_assigned = self.assignments
        seconds, known = self.predict(job, worker)
        assignment = Assignment(worker, job.stage, job.attempt, received, seconds, known)
        job.assignment = assignment
        job.recovering = job.doubtful = job.contested = False
        worker.assignments[job.job_id] = assignment
        self.touch(worker)
        return assignment

    def mark_started(self, job: JobEntry) -> None:
        """Take note that the engine runs a job's stage."""
        assignment = job.assignment
        assert assignment is not None
        if assignment.started_at is None:
            assignment.started_at = assignment.step_at = self.now
            self.jobs.count_ahead(job)
            assignment.seconds, assignment.known = self.predict(job, assignment.worker)
            self.expect_end(job, assignment.seconds)
        self.mark_received(job)
        if job.status is not StageStatus.RUNNING:
            self.move(job, job.state, StageStatus.RUNNING)

    def mark_received(self, job: JobEntry) -> None:
        """Take note that the input of a job's assignment is in its slot."""
        assert job.assignment is not None
        if not job.assignment.received:
            job.assignment.received = True
            self.clear_timer(TimerKind.TRANSFER, job.job_id)

    def unassign(self, job: JobEntry, *, cancel: bool) -> None:
        """Take a job's assignment back, if it has one."""
        assignment, job.assignment = job.assignment, None
        if assignment is None:
            return
        if not assignment.received:
            self.clear_timer(TimerKind.TRANSFER, job.job_id)
        if assignment.started_at is not None:
            self.jobs.count_ahead(job)
        worker = assignment.worker
        worker.assignments.pop(job.job_id, None)
        self.touch(worker)
        if cancel:
            self.cancel(worker, job.job_id, assignment.attempt)

    def hold(self, job: JobEntry, worker: WorkerEntry, held: HeldOutput) -> None:
        """Take note that a worker holds an output that the job needs."""
        stage = held.output.stage
        job.held[stage] = Held(held.output, worker.name, held.size_bytes, held.media)
        worker.holding.add((job.job_id, stage))

    def drop_held(self, job: JobEntry, stage: Stage, *, release: bool) -> None:
        """Forget an output, and let its holder forget it."""
        held = job.held.pop(stage, None)
        if held is None:
            return
        worker = self.workers.get(held.worker)
        if worker is None:
            return
        worker.holding.discard((job.job_id, stage))
        if release:
            self.release(worker, job.job_id, stage, held.key.attempt)

    def fetch(self, job: JobEntry) -> None:
        """Have the results fetched that a decoder holds."""
        held = job.held[Stage.DECODER]
        worker = self.workers.get(held.worker)
        assert worker is not None, "what a lost worker held is forgotten with it"
        if job.contested:
            # Files bear the attempt: so those of the gateway before are never taken for ours.
            job.contested = False
            message = "its results are fetched by another gateway"
            self.move(job, job.state, job.status, attempt=job.attempt + 1, message=message)
        job.fetching = True
        self.jobs.count_ahead(job)
        self.actions.append(
            FetchResult(worker.name, worker.info.incarnation, held.key, job.attempt, held.media)
        )

    def end_attempt(
        self, job: JobEntry, reason: str, message: str, *, counted: bool, delay: float = 0.0
    ) -> None:
        """Begin the next attempt of a job that is not assigned, or end it as FAILED.

        It goes on from the last stage whose output is held.

        Args:
            job: The job; its assignment was taken back before.
            reason: For the job's error, if this was the last attempt.
            message: What happened.
            counted: Whether the job may be at fault.
            delay: Seconds before it is dispatched again.
        """
        settings = self.settings
        self._stop_fetching(job)
        if counted:
            job.failures += 1
        else:
            job.setbacks += 1
        if job.failures >= settings.max_attempts:
            message = f"{message} (attempt {job.attempt}; {job.failures} attempts failed)"
            self.end(job, JobState.FAILED, JobError(reason, message))
        elif job.setbacks > settings.max_setbacks:
            message = f"{message} (attempt {job.attempt}; given up after {job.setbacks} setbacks)"
            self.end(job, JobState.FAILED, JobError(reason, message))
        else:
            self.resume(job, message, delay=delay)

    def resume(self, job: JobEntry, message: str, *, delay: float = 0.0) -> None:
        """Let an unassigned job wait in its next attempt, from the last stage that is held."""
        self.jobs.dequeue(job)
        self._stop_fetching(job)
        job.recovering = job.doubtful = job.contested = False
        stage = job.stage
        while stage > Stage.ENCODER and Stage(stage - 1) not in job.held:
            stage = Stage(stage - 1)
        if stage is not job.stage:
            job.avoid.clear()
        self.move(
            job,
            STAGE_STATES[stage],
            StageStatus.WAITING,
            attempt=job.attempt + 1,
            message=message,
        )
        self.enqueue(job, delay=delay)

    def end(self, job: JobEntry, state: JobState, error: JobError) -> None:
        """End a job without success: nothing of it runs or is held afterwards."""
        status = job.status
        self.jobs.dequeue(job)
        if job.fetching:
            self.actions.append(DiscardResult(job.job_id, job.attempt))
        self.move(job, state, status, message=error.message, error=error)
        self.unassign(job, cancel=True)
        self._forget(job)

    def complete(self, job: JobEntry, outputs: tuple[Output, ...]) -> None:
        """End a job as SUCCEEDED: its results are stored."""
        self.actions.append(
            CompleteJob(Completion(job.job_id, job.attempt, self.now, outputs, job.take_unsaved()))
        )
        self._forget(job)

    def drop(self, job: JobEntry) -> None:
        """Let go of a job without touching what is stored of it."""
        self.jobs.dequeue(job)
        self.unassign(job, cancel=True)
        self._forget(job)

    def cancel(self, worker: WorkerEntry, job_id: str, attempt: int) -> None:
        """Tell a worker, if it can be told, to stop a job's attempts up to this one."""
        if worker.connected:
            self.actions.append(CancelOnWorker(worker.name, job_id, attempt))

    def release(self, worker: WorkerEntry, job_id: str, stage: Stage | None, attempt: int) -> None:
        """Tell a worker, if it can be told, to forget outputs of attempts up to this one."""
        if worker.connected:
            self.actions.append(Release(worker.name, job_id, stage, attempt))

    def refuse(self, worker: str, job_id: str, attempt: int, message: str) -> None:
        """Count a message that is not about what was assigned."""
        self.actions.append(RefuseStale(worker, job_id, attempt, message))

    def refuse_work(self, worker: WorkerEntry, job_id: str, attempt: int, message: str) -> None:
        """Count a message about work that was not assigned, and stop that work."""
        self.refuse(worker.name, job_id, attempt, message)
        mine = worker.assignments.get(job_id)
        # A cancellation reaches up to its attempt: it must not hit what was assigned since.
        if mine is None or attempt < mine.attempt:
            self.cancel(worker, job_id, attempt)

    def note_outcome(
        self, job: JobEntry, assignment: Assignment, record: StageRecord | None, outcome: str
    ) -> None:
        """Keep the record of an assignment that ended, by the worker's account or our own."""
        mine = (assignment.stage, assignment.attempt, assignment.worker.name)
        if record is None:
            record = StageRecord(*mine, steps=assignment.step, outcome=outcome)
        elif (record.stage, record.attempt, record.worker, record.outcome) != (*mine, outcome):
            stage, attempt, worker = mine
            record = replace(record, stage=stage, attempt=attempt, worker=worker, outcome=outcome)
        job.note(record)

    def _stop_fetching(self, job: JobEntry) -> None:
        if job.fetch_tries:
            job.fetch_tries = 0
            self.clear_timer(TimerKind.FETCH, job.job_id)
        if job.fetching:
            job.fetching = False
            self.jobs.count_ahead(job)
            self.actions.append(DiscardResult(job.job_id, job.attempt))

    def _forget(self, job: JobEntry) -> None:
        for stage in list(job.held):
            held = job.held[stage]
            self.drop_held(job, stage, release=False)
            worker = self.workers.get(held.worker)
            if worker is not None:
                self.release(worker, job.job_id, None, max(job.attempt, held.key.attempt))
        self.stop_retrying(job)
        if job.fetch_tries:
            self.clear_timer(TimerKind.FETCH, job.job_id)
        if job.spec.deadline is not None:
            self.clear_timer(TimerKind.DEADLINE, job.job_id)
        self.jobs.remove(job)
