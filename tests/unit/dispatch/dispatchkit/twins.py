"""Two dispatchers that are told the same, and a small fleet that does what they want."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from random import Random

from disagfusion.dispatch import actions as act
from disagfusion.dispatch import events as ev
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.dispatch.settings import DispatchSettings
from disagfusion.jobs.model import FailureKind, Output, Stage
from dispatchkit.desk import assigned
from dispatchkit.reference import ReferenceDispatcher

IMAGE = Output(0, "image/png", 10, 1, 1, 1, "00")
KINDS = ("a", "b", "c")
QUARTER = 1 / 64
"""Of a second's sixteenth: times are multiples of it, so that sums of them are exact."""


@dataclass
class Work:
    """A stage of a job on a worker."""

    job_id: str
    attempt: int
    stage: Stage
    received: bool
    started: bool = False


@dataclass
class Twin:
    """A worker of both dispatchers."""

    info: ev.WorkerInfo
    speed: float
    work: list[Work] = field(default_factory=list)
    held: dict[ev.OutputKey, int] = field(default_factory=dict)
    grants: list[str] = field(default_factory=list)
    connected: bool = True


class Twins:
    """Random things happen to both, and what they want must be the same.

    Args:
        seed: Of what happens.
        settings: Of both.
    """

    def __init__(self, seed: int, settings: DispatchSettings) -> None:
        self.random = Random(seed)
        self.now = 1024.0
        self.serial = itertools.count(1)
        prior = self.prior if self.random.random() < 0.4 else None
        self.mine = Dispatcher(settings, now=self.now, prior=prior)
        self.reference = ReferenceDispatcher(settings, now=self.now, prior=prior)
        self.workers: dict[str, Twin] = {}
        self.jobs: set[str] = set()
        self.assigned = 0
        several = [
            *[frozenset({stage}) for stage in Stage] * 3,
            frozenset({Stage.DIT, Stage.DECODER}),
        ]
        for number in range(self.random.randrange(3, 13)):
            stages = several[number] if number < 3 else self.random.choice(several)
            self.add_worker(f"w{number}", stages)

    def prior(self, pool: str, stage: Stage, job: ev.JobSubmitted) -> float | None:
        if job.cost_key == "c":
            return None
        return {"": 4.0, "p": 2.0, "q": 8.0}[pool] * (1 + KINDS.index(job.cost_key))

    def add_worker(self, name: str, stages: frozenset[Stage]) -> None:
        random = self.random
        info = ev.WorkerInfo(
            name,
            f"{name}#{next(self.serial)}",
            stages,
            "pipeline",
            random.choice(["v1"] * 6 + ["v2"]),
            ev.WorkerState.READY,
            random.choice([1, 2, 2, 3]),
            random.choice(["", "p", "q"]),
        )
        twin = self.workers[name] = Twin(info, random.choice([0.5, 1.0, 1.0, 2.0, 4.0]))
        self.connect(twin)

    def connect(self, twin: Twin) -> None:
        free = twin.info.slots - len(twin.work)
        twin.grants = [f"{twin.info.name}/{next(self.serial)}" for _ in range(free)]
        twin.connected = True
        running = tuple(
            ev.RunningAssignment(
                work.job_id,
                work.attempt,
                work.stage,
                ev.StageStatus.RUNNING if work.started else ev.StageStatus.TRANSFERRING,
            )
            for work in twin.work
        )
        held = tuple(
            ev.HeldOutput(key, size, (IMAGE,) if key.stage is Stage.DECODER else ())
            for key, size in twin.held.items()
        )
        self.tell(ev.WorkerConnected(twin.info, running, held, tuple(twin.grants)))

    def tell(self, event: ev.Event) -> None:
        """Tell both, compare what they want, and do it."""
        found = self.mine.handle(event, self.now)
        expected = self.reference.handle(event, self.now)
        if found != expected:
            given, wanted = assigned(found), assigned(expected)
            raise AssertionError(f"{event} at {self.now}: {given} instead of {wanted}")
        look, wakeup = self.reference.look, self.mine.next_wakeup()
        assert look is None or (wakeup is not None and wakeup <= look + 1e-9), event
        for action in found:
            self.do(action)

    def do(self, action: act.Action) -> None:
        match action:
            case act.Assign():
                self.assigned += 1
                twin = self.workers[action.worker]
                twin.grants.remove(action.grant_id)
                twin.work.append(
                    Work(action.job_id, action.attempt, action.stage, action.source is None)
                )
            case act.CancelOnWorker():
                twin = self.workers[action.worker]
                gone = [work for work in twin.work if work.job_id == action.job_id]
                for work in gone:
                    twin.work.remove(work)
            case act.Release():
                held = self.workers[action.worker].held
                for key in list(held):
                    if key.job_id == action.job_id and action.stage in (None, key.stage):
                        del held[key]
            case act.FetchResult():
                pass
            case act.CompleteJob(completion):
                self.jobs.discard(completion.job_id)

    def step(self) -> None:
        """Let something happen."""
        happen = self.random.choice(
            [self.submit] * 4
            + [self.pass_time] * 5
            + [self.receive] * 6
            + [self.start] * 7
            + [self.progress] * 2
            + [self.finish] * 7
            + [self.grant] * 7
            + [self.fetch] * 5
            + [self.fail, self.break_off, self.come_back, self.come_back, self.lose, self.drain]
        )
        happen()

    def submit(self) -> None:
        if len(self.jobs) < 20:
            job_id = f"j{next(self.serial)}"
            self.jobs.add(job_id)
            kind, priority = self.random.choice(KINDS), self.random.choice([0, 0, 0, 1])
            self.tell(ev.JobSubmitted(job_id, "t", "pipeline", priority, cost_key=kind))

    def pass_time(self) -> None:
        until = self.now + QUARTER * self.random.choice([1, 4, 16, 64, 128])
        while True:
            times = [self.mine.next_wakeup(), self.reference.next_wakeup()]
            first = min((at for at in times if at is not None), default=until)
            self.now = min(max(self.now, first), until)
            self.tell(ev.Tick())
            if self.now >= until:
                return

    def some(self, wanted: str) -> tuple[Twin, Work] | None:
        found = [
            (twin, work)
            for twin in self.workers.values()
            if twin.connected
            for work in twin.work[:1]
            if {
                "start": work.received and not work.started,
                "run": work.started,
                "any": True,
            }[wanted]
        ]
        return self.random.choice(found) if found else None

    def receive(self) -> None:
        found = [
            (twin, work)
            for twin in self.workers.values()
            for work in twin.work
            if twin.connected and not work.received
        ]
        if found:
            twin, work = self.random.choice(found)
            work.received = True
            seconds = self.random.choice([0.0, 0.0625, 0.125])
            size = self.random.choice([1 << 10, 1 << 20])
            info = twin.info
            self.tell(
                ev.InputReceived(
                    info.name, info.incarnation, work.job_id, work.attempt, seconds, size
                )
            )

    def start(self) -> None:
        found = self.some("start")
        if found is not None:
            twin, work = found
            work.started = True
            info = twin.info
            self.tell(
                ev.StageStarted(info.name, info.incarnation, work.job_id, work.attempt, work.stage)
            )

    def progress(self) -> None:
        found = self.some("run")
        if found is not None and found[1].stage is Stage.DIT:
            twin, work = found
            info, step = twin.info, self.random.randrange(1, 5)
            self.tell(
                ev.StepCompleted(info.name, info.incarnation, work.job_id, work.attempt, step, 4)
            )

    def finish(self) -> None:
        found = self.some("run")
        if found is None:
            return
        twin, work = found
        twin.work.remove(work)
        key = ev.OutputKey(work.job_id, work.stage, work.attempt)
        size = self.random.choice([1, 1 << 16, 1 << 24, 1 << 26])
        twin.held[key] = size
        media = (IMAGE,) if work.stage is Stage.DECODER else ()
        seconds = twin.speed * self.random.choice([1.0, 1.0, 1.25]) * len(work.job_id)
        record = ev.StageRecord(work.stage, work.attempt, twin.info.name, compute_seconds=seconds)
        held = ev.HeldOutput(key, size, media, record)
        self.tell(ev.StageDone(twin.info.name, twin.info.incarnation, held))

    def grant(self) -> None:
        found = [
            twin
            for twin in self.workers.values()
            if twin.connected and len(twin.grants) + len(twin.work) < twin.info.slots
        ]
        if found:
            twin = self.random.choice(found)
            grant = f"{twin.info.name}/{next(self.serial)}"
            twin.grants.append(grant)
            self.tell(ev.GrantsOffered(twin.info.name, twin.info.incarnation, (grant,)))

    def fetch(self) -> None:
        for twin in self.workers.values():
            for key in list(twin.held):
                if key.stage is Stage.DECODER:
                    self.tell(ev.ResultStored(key.job_id, key.attempt, (IMAGE,)))
                    return

    def fail(self) -> None:
        found = self.some("any")
        if found is not None:
            twin, work = found
            twin.work.remove(work)
            kinds = [FailureKind.REFUSED, FailureKind.OUT_OF_MEMORY, FailureKind.ENGINE_LOST]
            info = twin.info
            self.tell(
                ev.StageFailed(
                    info.name,
                    info.incarnation,
                    work.job_id,
                    work.attempt,
                    work.stage,
                    self.random.choice(kinds),
                )
            )

    def break_off(self) -> None:
        twin = self.random.choice(list(self.workers.values()))
        # Until when a job waits for its holder depends on who looks at it when.
        if twin.connected and not twin.held:
            twin.connected = False
            twin.grants.clear()
            self.tell(ev.WorkerDisconnected(twin.info.name, twin.info.incarnation))

    def come_back(self) -> None:
        away = [twin for twin in self.workers.values() if not twin.connected]
        if away:
            self.connect(self.random.choice(away))

    def lose(self) -> None:
        twin = self.random.choice(list(self.workers.values()))
        twin.work.clear()
        twin.held.clear()
        twin.grants.clear()
        self.tell(ev.WorkerLost(twin.info.name, twin.info.incarnation))
        self.add_worker(twin.info.name, twin.info.stages)

    def drain(self) -> None:
        twin = self.random.choice(list(self.workers.values()))
        states = [ev.WorkerState.DRAINING, ev.WorkerState.LOADING, ev.WorkerState.READY]
        state = self.random.choice([*states, ev.WorkerState.READY])
        twin.info = replace(twin.info, state=state)
        self.tell(ev.WorkerStateChanged(twin.info))
