"""The embedded system with the real stages and the digits model."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from disagfusion.client import Client, JobState, Stage
from disagfusion.local import LocalRuntime, ProcessStatus

pytestmark = pytest.mark.timeout(600)

SMALL = {"height": 64, "width": 64, "num_inference_steps": 4}
PROMPT = "a handwritten seven in red"


def eventually(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def process(runtime: LocalRuntime, name: str) -> ProcessStatus:
    return next(entry for entry in runtime.status() if entry.name == name)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_picture_goes_through_three_processes(runtime: LocalRuntime) -> None:
    with Client(runtime.address) as client:
        result = client.generate(PROMPT, seed=7, **SMALL)
        again = client.generate(PROMPT, seed=7, **SMALL)
        other = client.generate(PROMPT, seed=8, **SMALL)
    (picture,) = result.images
    assert picture.size == (64, 64)
    assert [record.stage for record in result.stages] == [Stage.ENCODER, Stage.DIT, Stage.DECODER]
    pids = {record.pid for record in result.stages}
    assert len(pids) == 3
    assert {parent(pid) for pid in pids} == {process(runtime, "forkserver").pid}
    assert result.stages[0].transport.startswith("ucx/")
    assert result.stages[2].transport == ""
    assert result.outputs[0].content == again.outputs[0].content
    assert result.outputs[0].content != other.outputs[0].content


def test_all_processes_belong_to_one_supervisor(runtime: LocalRuntime) -> None:
    assert {parent(entry.pid) for entry in runtime.status()} == {
        parent(process(runtime, "gateway").pid)
    }
    assert parent(parent(process(runtime, "gateway").pid)) == os.getpid()


def test_the_supervisor_has_neither_grpc_nor_torch_nor_ucx(runtime: LocalRuntime) -> None:
    pid = parent(process(runtime, "gateway").pid)
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "python" in maps
    assert not [name for name in ("cygrpc", "libtorch", "libucp", "numpy") if name in maps]
    fronts = Path(f"/proc/{process(runtime, 'dit-0').pid}/maps").read_text()
    assert "libtorch" not in fronts


def test_a_gateway_that_dies_comes_back_at_its_address(runtime: LocalRuntime) -> None:
    before = process(runtime, "gateway")
    with Client(runtime.address, timeout=120.0) as client:
        first = client.generate(PROMPT, seed=1, **SMALL)
        os.kill(before.pid, signal.SIGKILL)
        second = client.generate(PROMPT, seed=1, **SMALL)
        assert client.job(first.job.id).job.state is JobState.SUCCEEDED
    after = process(runtime, "gateway")
    assert (after.pid != before.pid, after.address) == (True, before.address)
    assert first.outputs[0].content == second.outputs[0].content


def test_an_engine_that_dies_is_replaced(runtime: LocalRuntime) -> None:
    with Client(runtime.address, timeout=120.0) as client:
        first = client.generate(PROMPT, seed=2, **SMALL)
        for record in first.stages:
            os.kill(record.pid, signal.SIGKILL)
        second = client.generate(PROMPT, seed=2, **SMALL)
    assert first.outputs[0].content == second.outputs[0].content
    assert {r.pid for r in first.stages}.isdisjoint(
        {r.pid for r in second.stages if r.outcome == "done"}
    )


def test_a_fork_server_that_dies_comes_back(runtime: LocalRuntime) -> None:
    before = process(runtime, "forkserver")
    with Client(runtime.address, timeout=300.0) as client:
        engines = [record.pid for record in client.generate(PROMPT, seed=3, **SMALL).stages]
        os.kill(before.pid, signal.SIGKILL)
        eventually(lambda: not any(Path(f"/proc/{pid}/maps").exists() for pid in engines))
        assert client.generate(PROMPT, seed=3, **SMALL).images
    assert process(runtime, "forkserver").restarts == before.restarts + 1
