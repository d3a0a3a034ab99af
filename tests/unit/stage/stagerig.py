"""A machine with a clock of its own, and short ways to say what happens to it."""

from __future__ import annotations

import itertools
from typing import Any

from disagfusion.stage.actions import (
    Action,
    EngineInfo,
    GiveSpace,
    OutputKey,
    Product,
    RunOnEngine,
    StageEnded,
    StartEngine,
    Tell,
)
from disagfusion.stage.lifecycle import RestartPolicy
from disagfusion.stage.machine import MachineSettings, StageMachine
from disagfusion.transport.api import MessageHeader
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2

GATEWAY = "gateway/1"


class Rig:
    """A DiT's machine (an encoder's without `port`), and all that it ever wanted done."""

    def __init__(self, *, first: bool = False, **settings: Any) -> None:
        self.now = 100.0
        numbers = itertools.count(1)
        self.stage = pb.STAGE_ENCODER if first else pb.STAGE_DIT
        values: dict[str, Any] = {
            "stage": self.stage,
            "port": "" if first else "dit",
            "slots": 2,
            "slot_bytes": 4096,
            "held_bytes": 8192,
            "held_seconds": 900.0,
            "input_seconds": 60.0,
            "drain_seconds": 25.0,
            "restart": RestartPolicy(crash_first=1.0, load_first=5.0, maximum=60.0),
        }
        self.machine = StageMachine(
            MachineSettings(**{**values, **settings}),
            stage_pb2.Worker(name="dit-0", incarnation="i", stages=[self.stage]),
            new_id=lambda: f"g{next(numbers)}",
            now=self.now,
        )
        self.done: list[Action] = []

    def do(self, todo: list[Action]) -> list[Action]:
        self.done += todo
        return todo

    def boot(self) -> None:
        self.do(self.machine.tick(self.now))
        assert self.done.count(StartEngine()) == 1
        self.machine.engine_launched(4711)
        self.do(self.machine.engine_loaded(EngineInfo("{}", "v1", "cpu", 1, 1), self.now))

    def ready(self) -> Rig:
        self.boot()
        self.connect()
        return self

    def connect(self, gateway: str = "gateway", session: str = GATEWAY) -> stage_pb2.WorkerHello:
        return next(
            action.message.hello
            for action in self.do(self.machine.connected(session, gateway, self.now))
            if isinstance(action, Tell) and action.message.HasField("hello")
        )

    def told(self, kind: str, session: str | None = None) -> list[Any]:
        """What gateways were told of this kind, oldest first."""
        return [
            getattr(action.message, kind)
            for action in self.done
            if isinstance(action, Tell)
            and action.message.WhichOneof("message") == kind
            and session in (None, action.gateway)
        ]

    def grants(self, session: str = GATEWAY) -> list[str]:
        """Grants that were offered to a session, oldest first."""
        hellos = [grant for hello in self.told("hello", session) for grant in hello.grant_ids]
        return hellos + [g for grants in self.told("grants", session) for g in grants.grant_ids]

    def assignment(self, job: str, grant: str, attempt: int = 1) -> stage_pb2.Assignment:
        message = stage_pb2.Assignment(
            job_id=job, attempt=attempt, stage=self.stage, grant_id=grant
        )
        if self.stage != pb.STAGE_ENCODER:
            message.input.job_id = job
            message.input.stage = pb.STAGE_ENCODER
            message.input.attempt = 1
        return message

    def assign(self, job: str, grant: str, attempt: int = 1) -> list[Action]:
        message = self.assignment(job, grant, attempt)
        return self.do(self.machine.assign(GATEWAY, message, self.now))

    @staticmethod
    def header(
        job: str, grant: str, attempt: int = 1, nbytes: int = 64, source: int = 1
    ) -> MessageHeader:
        return MessageHeader(
            "m", job, attempt, "dit", grant, "sender", "encoder", source, (), b"{}", nbytes
        )

    def deliver(self, job: str, grant: str, attempt: int = 1, source: int = 1) -> list[Action]:
        header = self.header(job, grant, attempt, source=source)
        self.machine.admit(header, self.now)
        return self.do(self.machine.delivered(header, 0.5, self.now))

    @property
    def given(self) -> list[RunOnEngine]:
        """The runs that engines were given, oldest first."""
        return [action for action in self.done if isinstance(action, RunOnEngine)]

    @property
    def run(self) -> RunOnEngine:
        """The run that the engine computes, or the last one that it has computed."""
        runs = {run.assignment.grant_id: run for run in self.given}
        ended = {a.assignment.grant_id for a in self.done if isinstance(a, StageEnded)}
        under_way = [run for grant, run in runs.items() if grant not in ended]
        return under_way[0] if under_way else self.given[-1]

    def start(self, job: str, grant: str | None = None, attempt: int = 1) -> int:
        """Have a job computed; return the run's id."""
        grant = grant or self.grants()[-1]
        self.assign(job, grant, attempt)
        if self.stage != pb.STAGE_ENCODER:
            self.deliver(job, grant, attempt)
        assert self.run.assignment.job_id == job
        return self.run.run_id

    def finish(self, run_id: int, nbytes: int = 100) -> int:
        """Have the engine write its output and end; return where it was written."""

        def given() -> GiveSpace | None:
            mine = [a for a in self.done if isinstance(a, GiveSpace) and a.run_id == run_id]
            return next((a for a in mine if a.nbytes >= nbytes), None)

        if given() is None:
            self.do(self.machine.engine_needs_space(run_id, nbytes, self.now))
        space = given()
        assert space is not None
        assert space.offset >= 0
        product = Product(nbytes, compute_seconds=1.0, steps=4)
        self.do(self.machine.engine_finished(run_id, product, self.now))
        return space.offset

    def key(self, job: str, attempt: int = 1) -> OutputKey:
        return OutputKey(job, self.stage, attempt)


def failures(rig: Rig) -> list[tuple[str, int, str]]:
    return [
        (failed.job_id, failed.attempt, stage_pb2.FailureKind.Name(failed.kind)[13:])
        for failed in rig.told("failed")
    ]
