"""A dispatcher to which things are told one at a time."""

from __future__ import annotations

import itertools

from disagfusion.dispatch import actions as act
from disagfusion.dispatch import events as ev
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.dispatch.settings import DispatchSettings
from disagfusion.jobs.model import FailureKind, JobState, Output, Stage, StageRecord, StageStatus

E, D, K = Stage.ENCODER, Stage.DIT, Stage.DECODER
IMAGE = Output(0, "image/png", 10, 1, 1, 1, "00")
WAITING, TRANSFERRING, RUNNING = StageStatus


class Desk:
    """A dispatcher and what it wanted done so far."""

    def __init__(self, settings: DispatchSettings | None = None, expected: tuple[str, ...] = ()):
        self.now = 1000.0
        self.dispatcher = Dispatcher(settings, now=self.now, expected_workers=expected)
        self.log: list[act.Action] = []
        self.grants = itertools.count()

    def give(self, event: ev.Event, after: float = 0.0) -> list[act.Action]:
        self.now += after
        found = self.dispatcher.handle(event, self.now)
        self.log += found
        return found

    def info(self, name: str, *stages: Stage, version: str = "v1", slots: int = 2) -> ev.WorkerInfo:
        return ev.WorkerInfo(
            name, f"{name}#1", frozenset(stages), "p", version, ev.WorkerState.READY, slots
        )

    def connect(
        self,
        name: str,
        *stages: Stage,
        version: str = "v1",
        slots: int = 2,
        running: tuple[ev.RunningAssignment, ...] = (),
        held: tuple[ev.HeldOutput, ...] = (),
    ) -> list[act.Action]:
        grants = tuple(f"{name}/{next(self.grants)}" for _ in range(slots))
        info = self.info(name, *stages, version=version, slots=slots)
        return self.give(ev.WorkerConnected(info, running, held, grants))

    def grant(self, name: str) -> list[act.Action]:
        return self.give(ev.GrantsOffered(name, f"{name}#1", (f"{name}/{next(self.grants)}",)))

    def submit(self, job_id: str, **changes: object) -> list[act.Action]:
        spec = ev.JobSubmitted(job_id, "anna", "p", cost_key="c", num_inference_steps=4)
        return self.give(spec._replace(**changes))  # type: ignore[arg-type]

    def recover(
        self,
        job_id: str,
        state: JobState,
        status: StageStatus,
        attempt: int = 1,
        *,
        contested: bool = False,
    ) -> list[act.Action]:
        spec = ev.JobSubmitted(job_id, "anna", "p")
        return self.give(ev.JobRecovered(spec, state, status, attempt, "v1", 0, contested))

    def receive(self, name: str, job_id: str, attempt: int = 1) -> list[act.Action]:
        return self.give(ev.InputReceived(name, f"{name}#1", job_id, attempt, 0.01))

    def start(self, name: str, job_id: str, stage: Stage, attempt: int = 1) -> list[act.Action]:
        return self.give(ev.StageStarted(name, f"{name}#1", job_id, attempt, stage))

    def finish(
        self, name: str, job_id: str, stage: Stage, attempt: int = 1, seconds: float = 1.0
    ) -> list[act.Action]:
        record = StageRecord(stage, attempt, name, compute_seconds=seconds)
        done = ev.StageDone(name, f"{name}#1", held(job_id, stage, attempt, record))
        return self.give(done) + self.grant(name)

    def fail(
        self,
        name: str,
        job_id: str,
        stage: Stage,
        attempt: int = 1,
        kind: FailureKind = FailureKind.INTERNAL,
    ) -> list[act.Action]:
        failed = ev.StageFailed(name, f"{name}#1", job_id, attempt, stage, kind, "why")
        return self.give(failed) + self.grant(name)

    def encode(self, job_id: str, name: str = "e") -> list[act.Action]:
        return self.finish(name, job_id, E, seconds=0.05)

    def until_wakeup(self) -> list[act.Action]:
        at = self.dispatcher.next_wakeup()
        assert at is not None
        self.now = max(self.now, at)
        return self.give(ev.Tick())

    def state(self, job_id: str) -> tuple[JobState, StageStatus, int]:
        job = self.dispatcher._core.jobs.get(job_id)
        assert job is not None
        return job.state, job.status, job.attempt


def held(
    job_id: str, stage: Stage, attempt: int = 1, record: StageRecord | None = None
) -> ev.HeldOutput:
    media = (IMAGE,) if stage is K else ()
    return ev.HeldOutput(ev.OutputKey(job_id, stage, attempt), 10, media, record)


def assigned(actions: list[act.Action]) -> list[tuple[str, str]]:
    return [(a.job_id, a.worker) for a in actions if isinstance(a, act.Assign)]


def states(actions: list[act.Action]) -> list[tuple[JobState, StageStatus, int]]:
    return [
        (a.transition.state, a.transition.stage_status, a.transition.attempt)
        for a in actions
        if isinstance(a, act.SaveTransition)
    ]
