"""The dispatcher: events in, actions out."""

from __future__ import annotations

from collections.abc import Collection

from disagfusion.dispatch import messages, policy, recovery
from disagfusion.dispatch.actions import Action, DiscardResult
from disagfusion.dispatch.core import Core, TimerKind
from disagfusion.dispatch.events import (
    CancelRequested,
    Event,
    GrantsOffered,
    InputReceived,
    JobDropped,
    JobRecovered,
    JobSubmitted,
    OutputSent,
    ResultFailed,
    ResultFailure,
    ResultStored,
    SendFailed,
    StageDone,
    StageFailed,
    StageStarted,
    StepCompleted,
    Tick,
    WorkerConnected,
    WorkerDisconnected,
    WorkerLost,
    WorkerStateChanged,
)
from disagfusion.dispatch.settings import DispatchSettings, Load
from disagfusion.dispatch.tables import JobEntry
from disagfusion.jobs.model import JobError, JobState, Stage

_MAX_FETCHES = 5


class Dispatcher:
    """Decides who runs what next; knows no clock, network, storage or randomness.

    After a start, give it a `JobRecovered` for every unfinished job before the first
    `WorkerConnected`: outputs of jobs it does not know are released.

    Args:
        settings: How it behaves.
        now: Unix seconds at the start; recovery is timed from here.
        expected_workers: Names of the workers that are known to exist: recovery ends early once
            all of them have said hello.
    """

    def __init__(
        self,
        settings: DispatchSettings | None = None,
        *,
        now: float,
        expected_workers: Collection[str] = (),
    ) -> None:
        self._core = Core(settings or DispatchSettings(), now)
        self._expected = set(expected_workers)
        self._early_end = bool(expected_workers)
        self._look_again: float | None = None

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take note of an event and return what has to be done, in order.

        Args:
            event: What happened.
            now: Unix seconds; never goes back (an earlier time counts as the latest one seen).
        """
        core = self._core
        core.now = max(core.now, now)
        self._route(event)
        self._fire_timers()
        self._look_again = policy.schedule(core)
        actions, core.actions = core.actions, []
        return actions

    def next_wakeup(self) -> float | None:
        """Return when `Tick` has to be given at the latest, or None when nothing is timed."""
        first = self._core.timers.peek()
        times = [at for at in (first[1][0] if first else None, self._look_again) if at is not None]
        return min(times, default=None)

    def load(self, tenant: str) -> Load:
        """Return what admission has to know about this moment."""
        core = self._core
        seconds = 0.0
        for stage in Stage:
            workers = [worker for worker in core.workers if stage in worker.info.stages]
            if workers:
                seconds = max(seconds, core.estimates.mean_service(stage) / len(workers))
        return Load(core.jobs.count_queued(), core.jobs.count_tenant(tenant), seconds)

    def _route(self, event: Event) -> None:
        core = self._core
        match event:
            case StepCompleted():
                messages.on_step(core, event)
            case StageStarted():
                messages.on_started(core, event)
            case InputReceived():
                messages.on_received(core, event)
            case StageDone():
                messages.on_done(core, event)
            case GrantsOffered():
                worker = core.workers.get(event.worker, event.incarnation)
                if worker is not None and worker.connected:
                    worker.offer(event.grant_ids)
            case OutputSent():
                messages.on_sent(core, event)
            case JobSubmitted():
                self._submit(event)
            case ResultStored():
                self._result_stored(event)
            case ResultFailed():
                self._result_failed(event)
            case StageFailed():
                messages.on_failed(core, event)
            case SendFailed():
                messages.on_send_failed(core, event)
            case CancelRequested():
                job = core.jobs.get(event.job_id)
                if job is not None:
                    core.end(job, JobState.CANCELLED, JobError("CANCELLED", event.message))
            case JobDropped():
                job = core.jobs.get(event.job_id)
                if job is not None:
                    core.drop(job)
            case WorkerConnected():
                recovery.on_connected(core, event)
                self._expected.discard(event.worker.name)
                if self._early_end and not self._expected:
                    recovery.end_recovery(core)
            case WorkerDisconnected():
                recovery.on_disconnected(core, event)
            case WorkerLost():
                recovery.on_lost(core, event)
            case WorkerStateChanged():
                recovery.on_state_changed(core, event)
            case JobRecovered():
                recovery.on_recovered(core, event)
            case Tick():
                pass

    def _submit(self, event: JobSubmitted) -> None:
        core = self._core
        if core.jobs.get(event.job_id) is not None:
            return
        job = core.jobs.add(event)
        if event.deadline is not None:
            core.set_timer(TimerKind.DEADLINE, job.job_id, event.deadline)
        core.enqueue(job)

    def _result_stored(self, event: ResultStored) -> None:
        job = self._fetching(event.job_id, event.attempt)
        if job is None:
            self._core.actions.append(DiscardResult(event.job_id, event.attempt))
        else:
            outputs = event.outputs or job.held[Stage.DECODER].media
            self._core.complete(job, outputs)

    def _result_failed(self, event: ResultFailed) -> None:
        core = self._core
        job = self._fetching(event.job_id, event.attempt)
        if job is None:
            core.actions.append(DiscardResult(event.job_id, event.attempt))
            return
        job.fetch_tries += 1
        lost = event.failure is ResultFailure.LOST
        if event.failure is ResultFailure.UNAVAILABLE and job.fetch_tries >= _MAX_FETCHES:
            lost = True
        if not lost:
            tries = min(job.fetch_tries, 32)
            delay = min(core.settings.max_backoff, core.settings.first_backoff * 2.0**tries)
            core.set_timer(TimerKind.FETCH, job.job_id, core.now + delay)
            return
        message = f"the results could not be fetched: {event.message}"
        core.drop_held(job, Stage.DECODER, release=True)
        core.end_attempt(job, "RESULT_LOST", message, counted=True)

    def _fetching(self, job_id: str, attempt: int) -> JobEntry | None:
        job = self._core.jobs.get(job_id)
        if job is None or not job.fetching or job.attempt != attempt:
            return None
        return job

    def _fire_timers(self) -> None:
        core = self._core
        while (first := core.timers.peek()) is not None and first[1][0] <= core.now:
            core.timers.pop()
            self._fire(*first[0])

    def _fire(self, kind: TimerKind, name: str) -> None:
        core = self._core
        if kind is TimerKind.RECOVERY:
            recovery.end_recovery(core)
            return
        if kind is TimerKind.VERSION:
            policy.on_version_timer(core, name)
            return
        job = core.jobs.get(name)
        assert job is not None, "a job's timers end with it"
        match kind:
            case TimerKind.DEADLINE:
                message = f"not finished within its time, in {job.state.name}"
                core.end(job, JobState.EXPIRED, JobError("DEADLINE_EXCEEDED", message))
            case TimerKind.RETRY:
                core.enqueue(job)
            case TimerKind.FETCH:
                core.fetch(job)
            case TimerKind.TRANSFER:
                messages.on_transfer_timeout(core, job)
