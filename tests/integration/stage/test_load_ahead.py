"""A worker whose next stage's engine loads while the present one has not finished its jobs.

The job that is not finished waits for room that only the test gives, or goes on until the test
stops it: nothing here depends on how long something takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from stagekit.driver import PATIENCE, Driver, Worker, generation
from stagekit.processes import Cluster, Process

from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2

# One output fits the worker's memory, and not a second one.
PROFILE: dict[str, Any] = {
    "pools": {"quick": {"accelerators": 1, "start_seconds": 0.1, "load_ahead": True}},
    "stages": {
        "encoder": {"output_mib": 0.3, "pools": {"quick": {"seconds": 0.01}}},
        "dit": {"pools": {"quick": {"seconds": 0.01}}},
        "decoder": {"pools": {"quick": {"seconds": 0.01}}},
    },
}
MEMORY = {"arena_bytes": 1 << 20, "slots": 1}
# More denoising steps than anybody waits for.
ENDLESS = 1_000_000
STATES = stage_pb2.WorkerState


def alive(pid: int) -> bool:
    # Nobody but whoever it was given to after its parent's death clears away what is left of it.
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := condition():
                return found
            await asyncio.sleep(0.01)


@dataclass
class Held:
    """An encoder that cannot finish its second job before its first one's output is released."""

    front: Process
    worker: Worker
    engine: int

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = self.front.log.read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]

    async def change(self, stage: pb.Stage) -> stage_pb2.Worker:
        request = stage_pb2.ChangeStageRequest(stage=stage)
        return (await self.worker.stub.ChangeStage(request)).worker

    async def loaded(self, times: int = 1) -> int:
        """Return the process of the engine that was loaded ahead."""
        entries = await until(lambda: self.logged("next engine loaded")[times - 1 :])
        return int(entries[0]["engine_pid"])

    async def check_held(self) -> None:
        """The second job is not done, and its engine is what the worker tells of."""
        described = await self.worker.describe()
        assert described.engine_pid == self.engine
        assert alive(self.engine)
        assert not self.worker.all("done", output__job_id="second")

    async def let_go(self) -> stage_pb2.OutputKey:
        await self.worker.release("first")
        return (await self.worker.expect("done", output__job_id="second")).done.output


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(PROFILE))
    return path


@asynccontextmanager
async def held_encoder(
    cluster: Cluster, profile: Path, name: str, **settings: object
) -> AsyncIterator[Held]:
    given = {
        "device": "emulated:quick", "profile": profile, "pipeline": "emulated-p",
        **MEMORY, **settings,
    }  # fmt: skip
    front = await asyncio.to_thread(lambda: cluster.front("encoder", name, **given))
    async with Worker(front.address) as worker:
        await worker.assign("first", pb.STAGE_ENCODER, generation())
        await worker.expect("done", output__job_id="first")
        await worker.assign("second", pb.STAGE_ENCODER, generation())
        await worker.expect("started", job_id="second")
        yield Held(front, worker, (await worker.describe()).engine_pid)


@pytest.mark.parametrize("forked", [True, False])
async def test_the_next_engine_has_loaded_before_the_last_job_is_done(
    cluster: Cluster, profile: Path, forked: bool
) -> None:
    server = {} if forked else {"fork_server": ""}
    async with held_encoder(cluster, profile, f"ahead-{forked}", **server) as held:
        described = await held.change(pb.STAGE_DIT)
        assert described.state == STATES.WORKER_STATE_DRAINING
        following = await held.loaded()
        await held.check_held()
        output = await held.let_go()
    assert following != held.engine
    async with Worker(held.front.address) as dit:
        await dit.ready()
        described = await dit.describe()
        assert list(described.stages) == [pb.STAGE_DIT]
        assert described.engine_pid == following
        await until(lambda: not alive(held.engine))
        # What it made as an encoder it denoises itself, and every byte is as it should be.
        await Driver(dit, dit, dit).hand_over(dit, dit, output, generation())
        done = (await dit.expect("done", output__stage=pb.STAGE_DIT)).done
        assert done.record.pid == following
    assert {entry["engine_pid"] for entry in held.logged("engine started")} == {
        held.engine, following,
    }  # fmt: skip
    assert len(held.logged("next engine started")) == 1
    assert not held.logged("next engine lost")


async def test_without_the_setting_it_loads_afterwards(cluster: Cluster, profile: Path) -> None:
    async with held_encoder(cluster, profile, "behind", load_ahead="off") as held:
        await held.change(pb.STAGE_DIT)
        await held.check_held()
        await held.let_go()
    async with Worker(held.front.address) as dit:
        await dit.ready()
        assert (await dit.describe()).engine_pid != held.engine
    assert not held.logged("next engine started")
    assert len(held.logged("engine started")) == 2


async def test_a_change_is_taken_back_or_becomes_another(cluster: Cluster, profile: Path) -> None:
    async with held_encoder(cluster, profile, "back") as held:
        await held.change(pb.STAGE_DIT)
        first = await held.loaded()
        await held.change(pb.STAGE_DECODER)
        second = await held.loaded(2)
        assert not alive(first), "the second one began after it had ended"
        described = await held.change(pb.STAGE_ENCODER)
        assert described.state == STATES.WORKER_STATE_READY
        await until(lambda: not alive(second))
        await held.check_held()
        await held.let_go()
        described = await held.worker.describe()
        assert described.engine_pid == held.engine
        assert list(described.stages) == [pb.STAGE_ENCODER]


async def test_one_that_dies_before_its_turn_costs_nothing_but_time(
    cluster: Cluster, profile: Path
) -> None:
    async with held_encoder(cluster, profile, "dies") as held:
        await held.change(pb.STAGE_DIT)
        following = await held.loaded()
        os.kill(following, signal.SIGKILL)
        (lost,) = await until(lambda: held.logged("next engine lost"))
        assert "SIGKILL" in lost["problem"]
        await held.check_held()
        await held.let_go()
    async with Worker(held.front.address) as dit:
        await dit.ready()
        assert (await dit.describe()).engine_pid not in (held.engine, following)


@pytest.mark.parametrize("forked", [True, False])
async def test_both_engines_die_with_their_front(
    cluster: Cluster, profile: Path, forked: bool
) -> None:
    server = {} if forked else {"fork_server": ""}
    async with held_encoder(cluster, profile, f"doomed-{forked}", **server) as held:
        await held.change(pb.STAGE_DIT)
        following = await held.loaded()
        assert alive(following)
        await asyncio.to_thread(held.front.stop, signal.SIGKILL)
        await until(lambda: not alive(held.engine) and not alive(following))


async def test_a_worker_that_is_to_end_prepares_nothing(cluster: Cluster, profile: Path) -> None:
    async with held_encoder(cluster, profile, "ending") as held:
        await held.change(pb.STAGE_DIT)
        following = await held.loaded()
        held.front.popen.send_signal(signal.SIGTERM)
        await until(lambda: not alive(following))
        await held.check_held()
        await held.let_go()
        await held.worker.release("second")
        assert await asyncio.to_thread(held.front.popen.wait, PATIENCE) == 0
    assert not alive(held.engine)


async def test_real_weights_are_loaded_beside_a_job_on_the_processor(
    cluster: Cluster, driver: Driver
) -> None:
    undisturbed = await driver.generate("beside-0", generation())
    asked = generation(steps=ENDLESS)
    front = await asyncio.to_thread(cluster.front, "dit", "beside")
    async with Worker(front.address) as dit:
        await dit.ready()
        held = Held(front, dit, (await dit.describe()).engine_pid)
        encoded = await driver.encode("endless", asked)
        await driver.hand_over(driver.encoder, dit, encoded.output, asked)
        await dit.expect("step", job_id="endless", step=1)
        await held.change(pb.STAGE_DECODER)
        following = await held.loaded()
        seen = len(dit.all("step"))
        await dit.expect("step", job_id="endless", step=seen + 1)
        assert (await dit.describe()).engine_pid == held.engine
        await dit.send(cancel=stage_pb2.CancelAssignment(job_id="endless", attempt=1))
        await dit.expect("failed", job_id="endless")
    async with Worker(front.address) as decoder:
        await decoder.ready()
        assert (await decoder.describe()).engine_pid == following
        other = Driver(driver.encoder, driver.dit, decoder)
        assert await other.generate("beside-1", generation()) == undisturbed
    await driver.encoder.release("endless")
    assert front.stop() == 0
    assert not alive(following)
