"""The dispatcher: events in, actions out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

from disagfusion.dispatch import messages, policy, recovery
from disagfusion.dispatch.actions import Action, DiscardResult
from disagfusion.dispatch.backlog import backlog
from disagfusion.dispatch.core import Core
from disagfusion.dispatch.estimates import Prior
from disagfusion.dispatch.events import (
    CancelRequested,
    Event,
    GrantsOffered,
    GrantsRecalled,
    HandedOver,
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
    TakeOverBegun,
    Tick,
    WorkerConnected,
    WorkerDisconnected,
    WorkerLost,
    WorkerStateChanged,
)
from disagfusion.dispatch.settings import DispatchSettings, Load
from disagfusion.dispatch.state import TimerKind
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
        prior: Predicts the seconds of a stage of a job on a pool where none of its kind were
            observed there yet. What it says counts as known, so that jobs wait for a faster worker.
    """

    def __init__(
        self,
        settings: DispatchSettings | None = None,
        *,
        now: float,
        expected_workers: Collection[str] = (),
        prior: Prior | None = None,
    ) -> None:
        self._core = Core(settings or DispatchSettings(), now, prior)
        self._expected = set(expected_workers)
        self._early_end = bool(expected_workers)
        self._react = self._handlers()

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take note of an event and return what has to be done, in order.

        Args:
            event: What happened.
            now: Unix seconds; never goes back (an earlier time counts as the latest one seen).
        """
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[Event], now: float) -> list[Action]:
        """Take note of events that happened together; decide once, with all of them in mind.

        Args:
            events: What happened, in order.
            now: Unix seconds, as in `handle`.
        """
        core = self._core
        if now > core.now:
            core.now = now
        react = self._react
        for event in events:
            react[type(event)](event)
        if core.timers.least <= core.now:
            self._fire_timers()
        self._decide()
        actions, core.actions = core.actions, []
        return actions

    def next_wakeup(self) -> float | None:
        """Return when `Tick` has to be given at the latest, or None when nothing is timed."""
        core = self._core
        timer, look = core.timers.peek(), core.agenda.looks.peek()
        if look is None:
            return None if timer is None else timer[1]
        at = look[1] - core.horizon
        return at if timer is None or at < timer[1] else timer[1]

    @property
    def examined(self) -> int:
        """How many workers were looked at so far in order to choose one."""
        return self._core.examined

    def load(self, tenant: str) -> Load:
        """Return what admission has to know about this moment."""
        core = self._core
        seconds = 0.0
        for stage in Stage:
            workers = core.workers.count(stage)
            if workers:
                seconds = max(seconds, core.estimates.mean_service(stage) / workers)
        return Load(core.jobs.count_queued(), core.jobs.count_tenant(tenant), seconds)

    def backlog(self, now: float) -> dict[tuple[str, Stage], float]:
        """Return the predicted seconds of work that is left, by pipeline and stage.

        Each unfinished job counts with what its current stage still takes, and with all of every
        later stage, on average over the workers of the stage. Pipelines that have neither workers
        nor jobs are left out. It takes O(workers, and kinds of jobs) time, not O(jobs).

        Args:
            now: Unix seconds; never goes back, as in `handle`.
        """
        core = self._core
        core.now = max(core.now, now)
        return backlog(core.flows, core.workers, core.estimates, core.now)

    def waiting(self) -> frozenset[Stage]:
        """Return the stages in which jobs wait for nothing but a grant."""
        blocked = self._core.agenda.blocked
        return frozenset(
            lane.stage
            for flow in self._core.flows
            for lane in flow.lanes
            if lane not in blocked and any(queue.items.size for queue in lane.queues.values())
        )

    def set_prior(self, prior: Prior | None) -> None:
        """Take another prior, or the same one once its answers have changed."""
        self._core.estimates.set_prior(prior)

    def _decide(self) -> None:
        policy.schedule(self._core)

    def _handlers(self) -> dict[type, Callable[[Any], None]]:
        """Return what is done about each kind of event."""
        core = self._core
        return {
            StepCompleted: partial(messages.on_step, core),
            StageStarted: partial(messages.on_started, core),
            InputReceived: partial(messages.on_received, core),
            StageDone: partial(messages.on_done, core),
            GrantsOffered: partial(messages.on_grants, core),
            GrantsRecalled: partial(messages.on_recalled, core),
            OutputSent: partial(messages.on_sent, core),
            StageFailed: partial(messages.on_failed, core),
            SendFailed: partial(messages.on_send_failed, core),
            JobSubmitted: self._submit,
            JobDropped: self._drop,
            CancelRequested: self._cancel,
            ResultStored: self._result_stored,
            ResultFailed: self._result_failed,
            JobRecovered: partial(recovery.on_recovered, core),
            WorkerConnected: self._connected,
            TakeOverBegun: self._take_over,
            HandedOver: self._handed_over,
            WorkerDisconnected: partial(recovery.on_disconnected, core),
            WorkerLost: partial(recovery.on_lost, core),
            WorkerStateChanged: partial(recovery.on_state_changed, core),
            Tick: lambda event: None,
        }

    def _connected(self, event: WorkerConnected) -> None:
        recovery.on_connected(self._core, event)
        self._heard_of(event.worker.name)

    def _take_over(self, event: TakeOverBegun) -> None:
        self._expected |= event.workers
        self._early_end = bool(self._expected)

    def _handed_over(self, event: HandedOver) -> None:
        recovery.on_handed_over(self._core, event)
        self._heard_of(event.worker)

    def _heard_of(self, worker: str) -> None:
        self._expected.discard(worker)
        if self._early_end and not self._expected:
            recovery.end_recovery(self._core)

    def _cancel(self, event: CancelRequested) -> None:
        job = self._core.jobs.get(event.job_id)
        if job is not None:
            self._core.end(job, JobState.CANCELLED, JobError("CANCELLED", event.message))

    def _drop(self, event: JobDropped) -> None:
        job = self._core.jobs.get(event.job_id)
        if job is not None:
            self._core.drop(job)

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
        while (first := core.timers.peek()) is not None and first[1] <= core.now:
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
                job.retrying = False
                core.enqueue(job)
            case TimerKind.FETCH:
                core.fetch(job)
            case TimerKind.TRANSFER:
                messages.on_transfer_timeout(core, job)
