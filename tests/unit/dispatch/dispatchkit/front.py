"""A stage service's front as the protocol describes it, without a process."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field

from disagfusion.dispatch import actions as act
from disagfusion.dispatch import events as ev
from disagfusion.jobs.model import FailureKind, Output, Stage, StageStatus

SLOTS = 2
STEPS = 3
IMAGE = Output(0, "image/png", 10, 1, 1, 1, "00")
serial = itertools.count(1)


@dataclass
class Task:
    job_id: str
    attempt: int
    stage: Stage
    grant: str
    status: StageStatus
    step: int = 0


@dataclass
class SimWorker:
    """A front as the protocol describes it."""

    name: str
    stages: frozenset[Stage]
    incarnation: str = ""
    connected: bool = False
    grants: set[str] = field(default_factory=set)
    arrived: dict[str, None] = field(default_factory=dict)
    tasks: dict[tuple[str, int], Task] = field(default_factory=dict)
    held: dict[ev.OutputKey, None] = field(default_factory=dict)
    fence: Counter[str] = field(default_factory=Counter)
    inbox: deque[act.Action] = field(default_factory=deque)
    outbox: deque[ev.Event] = field(default_factory=deque)
    condemned: bool = False

    def start(self) -> None:
        self.incarnation = f"{self.name}#{next(serial)}"
        self.grants = {self.new_grant() for _ in range(SLOTS)}
        for container in (self.arrived, self.tasks, self.held, self.fence, self.inbox, self.outbox):
            container.clear()
        self.connected = self.condemned = False

    def new_grant(self) -> str:
        return f"{self.name}/{next(serial)}"

    @property
    def info(self) -> ev.WorkerInfo:
        state = ev.WorkerState.QUARANTINED if self.condemned else ev.WorkerState.READY
        return ev.WorkerInfo(self.name, self.incarnation, self.stages, "p", "v1", state, SLOTS)

    def hello(self) -> ev.WorkerConnected:
        self.connected = True
        self.inbox.clear()
        self.outbox.clear()
        running = tuple(
            ev.RunningAssignment(t.job_id, t.attempt, t.stage, t.status, t.step, STEPS)
            for t in self.tasks.values()
        )
        held = tuple(ev.HeldOutput(key, 1, media_of(key)) for key in self.held)
        return ev.WorkerConnected(self.info, running, held, tuple(sorted(self.grants)))

    def say(self, kind: type, *args: object) -> None:
        self.outbox.append(kind(self.name, self.incarnation, *args))

    def free(self, task: Task) -> None:
        del self.tasks[task.job_id, task.attempt]
        self.arrived.pop(task.grant, None)
        self.regrant()

    def regrant(self) -> None:
        grant = self.new_grant()
        self.grants.add(grant)
        self.say(ev.GrantsOffered, (grant,))

    def fail(self, task: Task, kind: FailureKind) -> None:
        self.free(task)
        self.say(ev.StageFailed, task.job_id, task.attempt, task.stage, kind, "made to")


def media_of(key: ev.OutputKey) -> tuple[Output, ...]:
    return (IMAGE,) if key.stage is Stage.DECODER else ()


class Fronts:
    """What fronts do with what a gateway sends them, and with each other."""

    workers: dict[str, SimWorker]
    produced: set[ev.OutputKey]

    def obey(self, worker: SimWorker) -> None:
        action = worker.inbox.popleft()
        match action:
            case act.Assign():
                known = action.grant_id in worker.grants
                if not known or action.attempt <= worker.fence[action.job_id] or worker.condemned:
                    refused = FailureKind.REFUSED
                    if known:  # an assignment uses its grant up, whatever becomes of it
                        worker.grants.discard(action.grant_id)
                        worker.regrant()
                    worker.say(
                        ev.StageFailed, action.job_id, action.attempt, action.stage, refused, "no"
                    )
                    return
                worker.grants.discard(action.grant_id)
                task = Task(
                    action.job_id,
                    action.attempt,
                    action.stage,
                    action.grant_id,
                    StageStatus.TRANSFERRING,
                )
                worker.tasks[task.job_id, task.attempt] = task
                if action.source is None:
                    task.status = StageStatus.WAITING
                elif action.grant_id in worker.arrived:
                    self.receive(worker, task)
            case act.Send():
                self.transfer(worker, action)
            case act.CancelOnWorker():
                worker.fence[action.job_id] = max(worker.fence[action.job_id], action.attempt)
                for task in list(worker.tasks.values()):
                    if task.job_id == action.job_id and task.attempt <= action.attempt:
                        worker.fail(task, FailureKind.CANCELLED)
            case act.Release():
                for key in list(worker.held):
                    if (
                        key.job_id == action.job_id
                        and action.stage in (None, key.stage)
                        and key.attempt <= action.attempt
                    ):
                        del worker.held[key]

    def transfer(self, sender: SimWorker, action: act.Send) -> None:
        if action.output not in sender.held:
            sender.say(ev.SendFailed, action.output, action.attempt, True, "gone")
            return
        receiver = self.workers[action.to]
        task = next((t for t in receiver.tasks.values() if t.grant == action.grant_id), None)
        valid = task is not None or action.grant_id in receiver.grants
        if receiver.incarnation != action.to_incarnation or not valid:
            sender.say(ev.SendFailed, action.output, action.attempt, False, "refused")
            return
        receiver.arrived[action.grant_id] = None
        if task is not None:
            self.receive(receiver, task)
        sender.say(ev.OutputSent, action.output, action.attempt, 0.01, 1, "tcp")

    def receive(self, worker: SimWorker, task: Task) -> None:
        if task.status is StageStatus.TRANSFERRING:
            task.status = StageStatus.WAITING
            worker.say(ev.InputReceived, task.job_id, task.attempt, 0.01)

    def work(self, worker: SimWorker, task: Task) -> None:
        if task.status is StageStatus.TRANSFERRING:
            return
        if task.status is StageStatus.WAITING:
            if any(t.status is StageStatus.RUNNING for t in worker.tasks.values()):
                return
            task.status = StageStatus.RUNNING
            worker.say(ev.StageStarted, task.job_id, task.attempt, task.stage)
        elif task.stage is Stage.DIT and task.step < STEPS:
            task.step += 1
            worker.say(ev.StepCompleted, task.job_id, task.attempt, task.step, STEPS)
        else:
            key = ev.OutputKey(task.job_id, task.stage, task.attempt)
            worker.held[key] = None
            self.produced.add(key)
            worker.free(task)
            worker.say(ev.StageDone, ev.HeldOutput(key, 1, media_of(key)))

    def fetch(self, failure: ev.ResultFailure | None) -> None:
        action = self.fetches.popleft()
        worker = self.workers[action.worker]
        if failure is None and worker.incarnation != action.incarnation:
            failure = ev.ResultFailure.UNAVAILABLE
        if failure is None and action.output not in worker.held:
            failure = ev.ResultFailure.LOST
        if failure is not None:
            self.give(ev.ResultFailed(action.output.job_id, action.attempt, failure))
            return
        self.results.add((action.output.job_id, action.attempt))
        self.give(ev.ResultStored(action.output.job_id, action.attempt))
