"""Loop, decision log, control socket, actuator, and signals while there is no gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from disagfusion.balancing.actuator import LocalActuator
from disagfusion.balancing.control import SupervisorControl
from disagfusion.balancing.decisions import Decisions
from disagfusion.balancing.learner import Learner
from disagfusion.balancing.loop import Loop
from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.errors import FailedPreconditionError, UnavailableError
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Missing, Observation
from disagfusion.scheduling.ports import Actuator, SignalSource
from disagfusion.scheduling.profile import Profile
from disagfusion.telemetry.metrics import BalancerMetrics

DIT, DECODER = Place("dit", "a"), Place("decoder", "a")
POOLS = {"encoder-0": "a", "dit-0": "a", "decoder-0": "a", "spare-0": "a", "spare-1": "a"}
PROFILE = Profile.model_validate(
    {
        "pools": {"a": {"accelerators": 5}},
        "stages": {s: {"pools": {"a": {"seconds": 1}}} for s in ("encoder", "dit", "decoder")},
    }
)


class FakeSupervisor:
    """Answers on a unix socket as a supervisor does."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.processes = {
            name: {
                "name": name, "role": name.partition("-")[0], "pid": 0, "restarts": 0,
                "state": "stopped" if name.startswith("spare") else "ready",
            }
            for name in POOLS
        }  # fmt: skip

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question: dict[str, Any] = json.loads(await reader.readline())
        answer: dict[str, Any] = {"processes": list(self.processes.values())}
        if question["command"] != "status":
            self.asked.append(question)
            one = self.processes[question["name"]]
            if question["command"] == "start" and one["state"] != "stopped":
                answer = {"error": "it runs"}
            else:
                states = {"start": "starting", "stop": "stopping"}
                one["state"] = states.get(question["command"], one["state"])
                one["role"] = question.get("role", one["role"])
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[FakeSupervisor]:
    fake = FakeSupervisor()
    async with await asyncio.start_unix_server(fake.serve, tmp_path / "control"):
        yield fake


def parts(tmp_path: Path, budget: int) -> tuple[EmbeddedSignals, LocalActuator, list[Place]]:
    control = SupervisorControl(str(tmp_path / "control"), 5.0)
    learner, waiting = Learner(PROFILE), list[Place]()
    signals = EmbeddedSignals(
        f"unix:{tmp_path}/nobody", control, PROFILE, POOLS, learner, waiting,
        time_scale=1.0, patience=0.05, stale_after=30.0,
    )  # fmt: skip
    actuator = LocalActuator(
        signals, control, PROFILE, {}, POOLS, learner, waiting,
        budget=budget, time_scale=1.0, patience=0.05, tls=None,
    )  # fmt: skip
    return signals, actuator, waiting


def decide(*moves: Move) -> Decision:
    return Decision(0.0, moves, Reason.SCALE_UP)


async def test_a_gateway_that_does_not_answer_is_missing_and_no_zero(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    signals, _, _ = parts(tmp_path, 5)
    seen = await signals.observe(1.0)
    assert isinstance(seen.jobs, Missing)
    assert isinstance(seen.arrived, Missing)
    assert {type(load.busy) for load in seen.loads.values()} == {Missing}
    # Their processes hold accelerators, whatever nobody says of them.
    assert {stage: pools["a"].held for stage, pools in seen.replicas.items()} == {
        "encoder": 1, "dit": 1, "decoder": 1,
    }  # fmt: skip


async def test_the_budget_holds_and_a_start_waits_for_room(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    signals, actuator, waiting = parts(tmp_path, 4)
    await signals.observe(1.0)
    await actuator.carry_out(decide(Move(None, DIT, 2)), 1.0)
    assert supervisor.asked == [{"command": "start", "name": "spare-0", "role": "dit"}]
    assert waiting == [DIT]
    seen = await signals.observe(2.0)
    assert seen.replicas["dit"]["a"].starting == 3
    # One that ends still holds its accelerator.
    supervisor.processes["decoder-0"]["state"] = "stopping"
    await actuator.carry_out(decide(), 2.0)
    assert waiting == [DIT]
    supervisor.processes["decoder-0"]["state"] = "stopped"
    await actuator.carry_out(decide(), 3.0)
    assert waiting == []
    assert supervisor.asked[-1] == {"command": "start", "name": "decoder-0", "role": "dit"}


async def test_a_start_is_taken_back(tmp_path: Path, supervisor: FakeSupervisor) -> None:
    signals, actuator, waiting = parts(tmp_path, 4)
    await signals.observe(1.0)
    await actuator.carry_out(decide(Move(None, DECODER, 2)), 1.0)
    await signals.observe(2.0)
    await actuator.carry_out(decide(Move(DECODER, None, 1, cancel=True)), 2.0)
    assert waiting == []
    assert [one["command"] for one in supervisor.asked] == ["start"]


async def test_a_supervisor_that_refuses_or_has_gone(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    with pytest.raises(FailedPreconditionError, match="it runs"):
        await SupervisorControl(str(tmp_path / "control"), 5.0).start("dit-0", "dit")
    with pytest.raises(UnavailableError):
        await SupervisorControl(str(tmp_path / "nobody"), 5.0).status()


def decisions(path: Path, tmp_path: Path, limit: int) -> Decisions:
    metrics = BalancerMetrics(CollectorRegistry(), pipeline="p", reasons=["scale_up"])
    address = f"unix:{tmp_path}/nobody"
    return Decisions(path, address, "rule", metrics, patience=0.05, limit_bytes=limit)


async def test_every_decision_is_written_and_the_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = decisions(path, tmp_path, 400)
    for _ in range(5):
        await log.record(decide(Move(DIT, DECODER)), 100.0)
    entries = [
        json.loads(line)
        for file in (path.with_name("decisions.jsonl.1"), path)
        for line in file.read_text().splitlines()
    ]
    assert 1 <= len(entries) <= 5
    assert entries[-1]["reason"] == "SCALE_UP"
    assert entries[-1]["moves"] == [{"from": ["dit", "a"], "to": ["decoder", "a"], "count": 1}]
    assert path.stat().st_size < 800


class Source(SignalSource):
    async def observe(self, now: float) -> Observation:
        return Observation({}, Missing("nobody"), Missing("nobody"), {}, {})


class Hands(Actuator):
    def __init__(self) -> None:
        self.done: list[tuple[Decision, float]] = []

    async def carry_out(self, decision: Decision, now: float) -> None:
        self.done.append((decision, now))


class Counting:
    name, period = "counting", 10.0

    def initial(self) -> int:
        return 0

    def decide(self, state: int, observation: Observation, now: float) -> tuple[int, Decision]:
        assert isinstance(observation.jobs, Missing)
        return state + 1, Decision(now, (), Reason.METRICS_MISSING, f"{state + 1}")


async def test_the_loop_keeps_its_state_and_writes_down_before_it_acts() -> None:
    hands, written, fourth = Hands(), list[str](), asyncio.Event()

    async def record(decision: Decision) -> None:
        assert len(hands.done) == len(written)
        written.append(decision.message)
        if len(written) == 4:
            fourth.set()

    loop = Loop(Counting(), Source(), hands, record, time_scale=0.001)
    for now in (10.0, 20.0):
        await loop.step(now)
    assert written == ["1", "2"]
    assert [now for _, now in hands.done] == [10.0, 20.0]
    running = asyncio.create_task(loop.run())
    await fourth.wait()
    running.cancel()
