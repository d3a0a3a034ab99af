"""A small emulated system whose workers change their stage: real processes, gRPC and transport."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from disagfusion.client import Client, JobHandle, JobState, Stage
from disagfusion.local import Balance, LocalRuntime, ProcessStatus

pytestmark = pytest.mark.timeout(180)

PROFILE = Path(__file__).with_name("profile.yaml")
SCALE = 0.02
# A decoder takes 10 s, a DiT 2 s, an encoder half a second, of the profile's.
HEAVY = {"height": 500, "width": 500}
# And here a DiT 20 s, a decoder 0.4 s.
LONG = {"height": 100, "width": 100, "num_inference_steps": 10}


def eventually(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)
    return found


class System:
    def __init__(self, runtime: LocalRuntime, client: Client, data: Path) -> None:
        self.runtime, self.client, self._log = runtime, client, data / "decisions.jsonl"

    def process(self, name: str) -> ProcessStatus:
        return next(entry for entry in self.runtime.status() if entry.name == name)

    def decisions(self) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        lines = self._log.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def moves(self, since: int) -> list[dict[str, Any]]:
        return [d for d in self.decisions()[since:] if d["moves"]]

    def submit(self, count: int, **shape: Any) -> list[JobHandle]:
        return [self.client.submit("p", seed=seed, **shape) for seed in range(count)]

    def roles(self) -> dict[str, str]:
        return {e.name: e.role for e in self.runtime.status() if e.role in ("dit", "decoder")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def system(data: Path) -> Iterator[System]:
    with (
        LocalRuntime(
            profile=PROFILE,
            device="emulated:quick",
            dits=2,
            time_scale=SCALE,
            transport="tcp",
            data_dir=data,
            # What has ended must not tell tomorrow's mix: tests go from one to the other.
            balance=Balance(settings={"forecast_horizon": 0.0}),
        ) as runtime,
        Client(runtime.address, timeout=60.0) as client,
    ):
        yield System(runtime, client, data)


def finish(handles: list[JobHandle]) -> set[str]:
    """Wait for jobs; return the workers that decoded them."""
    workers = set()
    for handle in handles:
        job = handle.result().job
        assert job.state is JobState.SUCCEEDED
        workers |= {
            r.worker for r in job.stages if r.stage is Stage.DECODER and r.outcome == "done"
        }
    return workers


def lead(system: System, dits: int) -> None:
    """Bring about a ratio by work that asks for it; tests may come in any order."""
    if list(system.roles().values()).count("dit") != dits:
        finish(system.submit(12, **LONG) if dits == 2 else system.submit(40, **HEAVY))
    assert list(system.roles().values()).count("dit") == dits


def test_a_burst_for_the_decoder_makes_a_dit_change(system: System) -> None:
    lead(system, dits=2)
    since = len(system.decisions())
    roles = system.roles()
    before = system.process("dit-0").pid, system.process("dit-1").pid
    workers = finish(system.submit(40, **HEAVY))
    assert len(workers) == 2
    (changed,) = (name for name in workers if roles[name] == "dit")
    assert system.process(changed).role == "decoder"
    # The same process, never started anew.
    assert (system.process("dit-0").pid, system.process("dit-1").pid) == before
    (move,) = system.moves(since)
    assert move["reason"] == "REBALANCE"
    assert move["moves"] == [{"from": ["dit", "quick"], "to": ["decoder", "quick"], "count": 1}]
    assert "outlook" in move["message"]


def test_and_back_when_the_work_is_the_dits(system: System) -> None:
    lead(system, dits=1)
    since = len(system.decisions())
    handles = system.submit(12, **LONG)
    finish(handles)
    assert sorted(system.roles().values()) == ["decoder", "dit", "dit"]
    assert [d["moves"][0]["to"][0] for d in system.moves(since)] == ["dit"]


def test_a_worker_that_is_killed_while_it_changes(system: System) -> None:
    lead(system, dits=2)
    since = len(system.decisions())
    roles = system.roles()
    handles = system.submit(40, **HEAVY)
    changed = eventually(
        lambda: [n for n, role in system.roles().items() if role != roles[n]], "a change"
    )
    (name,) = changed
    pid = system.process(name).pid
    os.kill(pid, signal.SIGKILL)
    assert len(finish(handles)) == 2
    after = system.process(name)
    assert (after.role, after.pid != pid, after.restarts) == ("decoder", True, 1)
    more = len(system.decisions())
    eventually(lambda: len(system.decisions()) > more, "another decision")
    assert len(system.moves(since)) == 1


def test_a_gateway_that_is_killed_while_a_worker_changes(system: System) -> None:
    lead(system, dits=1)
    roles = system.roles()
    handles = system.submit(12, **LONG)
    eventually(lambda: any(r != roles[n] for n, r in system.roles().items()), "a change")
    before = system.process("gateway")
    os.kill(before.pid, signal.SIGKILL)
    assert finish(handles)
    assert sorted(system.roles().values()) == ["decoder", "dit", "dit"]
    assert system.process("gateway").pid != before.pid
