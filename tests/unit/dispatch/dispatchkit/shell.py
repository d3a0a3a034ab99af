"""What a gateway does with the dispatcher's actions, with a store that checks them.

A change of a job is durable some time after it was decided, and only then is done what stands
behind it; work is given out at once where its attempt is durable.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

from disagfusion.dispatch import actions as act
from disagfusion.dispatch import events as ev
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.jobs.model import STAGE_STATES, JobState, Stage, StageStatus, Transition
from dispatchkit.front import SimWorker


@dataclass
class Stored:
    """What the store has of a job."""

    spec: ev.JobSubmitted
    state: JobState = JobState.QUEUED
    status: StageStatus = StageStatus.WAITING
    attempt: int = 1
    version: str = ""
    failures: int = 0
    message: str = ""


class Shell:
    """Carries actions out, and asserts what must hold of each."""

    now: float
    dispatcher: Dispatcher
    workers: dict[str, SimWorker]
    store: dict[str, Stored]
    decided: dict[str, Stored]
    pending: deque[act.Action]
    told: dict[tuple[str, Stage, int], str]
    produced: set[ev.OutputKey]
    used_grants: set[tuple[str, str]]
    succeeded: Counter[str]
    results: set[tuple[str, int]]
    fetches: deque[act.FetchResult]

    def give(self, event: ev.Event) -> None:
        for action in self.dispatcher.handle(event, self.now):
            if self.at_once(action):
                self.execute(action)
                continue
            if isinstance(action, act.SaveTransition):
                self.save(self.decided[action.transition.job_id], action.transition)
            self.pending.append(action)

    def at_once(self, action: act.Action) -> bool:
        if isinstance(action, act.Assign):
            self.check_assign(action)
            return action.attempt == self.store[action.job_id].attempt
        return isinstance(action, act.Send | act.FetchResult)

    def commit(self, count: int) -> None:
        """Make some of what was decided durable."""
        for _ in range(min(count, len(self.pending))):
            self.execute(self.pending.popleft())

    def crash(self) -> None:
        """Forget what is not durable."""
        self.pending.clear()
        self.fetches.clear()
        self.decided = {job_id: replace(job) for job_id, job in self.store.items()}

    def execute(self, action: act.Action) -> None:
        match action:
            case act.SaveTransition(transition):
                self.save(self.store[transition.job_id], transition)
            case act.CompleteJob(done):
                job = self.store[done.job_id]
                assert (job.state, job.attempt) == (JobState.DECODING, done.attempt)
                assert (done.job_id, done.attempt) in self.results
                job.state = JobState.SUCCEEDED
                self.succeeded[done.job_id] += 1
            case act.Assign():
                told = (action.job_id, action.stage, action.attempt)
                assert self.told.setdefault(told, action.incarnation) == action.incarnation
                self.post(action.worker, action)
            case act.Send() | act.CancelOnWorker() | act.Release():
                self.post(action.worker, action)
            case act.FetchResult():
                self.fetches.append(action)
            case act.DiscardResult(job_id, attempt):
                job = self.store[job_id]
                if (job.state, job.attempt) != (JobState.SUCCEEDED, attempt):
                    self.results.discard((job_id, attempt))
            case act.Quarantine():
                worker = self.workers[action.worker]
                worker.condemned = True
            case act.Publish() | act.RefuseStale():
                pass

    def save(self, job: Stored, change: Transition) -> None:
        assert (job.state, job.attempt) == (change.from_state, change.from_attempt)
        assert change.attempt >= job.attempt
        if (change.state, change.stage_status) < (job.state, job.status):
            assert change.attempt == job.attempt + 1
        job.state, job.status, job.attempt = change.state, change.stage_status, change.attempt
        job.version, job.failures, job.message = change.version, change.failures, change.message

    def check_assign(self, action: act.Assign) -> None:
        job = self.decided[action.job_id]
        assert (job.state, job.attempt) == (STAGE_STATES[action.stage], action.attempt)
        assert job.status is StageStatus.TRANSFERRING
        key = (action.incarnation, action.grant_id)
        worker = self.workers[action.worker]
        assert worker.connected
        if action.grant_id not in worker.grants:
            assert key not in self.used_grants
        self.used_grants.add(key)
        if action.stage is not Stage.ENCODER:
            assert action.source in self.produced
            assert action.source.stage == action.stage - 1
            assert action.source.attempt <= action.attempt

    def post(self, name: str, action: act.Action) -> None:
        worker = self.workers[name]
        incarnation = getattr(action, "incarnation", worker.incarnation)
        if worker.connected and incarnation == worker.incarnation:
            worker.inbox.append(action)
