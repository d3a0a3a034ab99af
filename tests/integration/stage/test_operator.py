"""The operator has a real worker change its stage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from disagfusion_operator.scaling.workers import GrpcWorkers
from stagekit.driver import PATIENCE, Worker, generation
from stagekit.processes import Cluster

from disagfusion.errors import FailedPreconditionError, UnavailableError
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2

PROFILE: dict[str, Any] = {
    "pools": {"quick": {"accelerators": 1, "start_seconds": 0.1}},
    "stages": {
        "encoder": {"output_mib": 0.3, "pools": {"quick": {"seconds": 0.01}}},
        "dit": {"pools": {"quick": {"seconds": 0.01}}},
        "decoder": {"pools": {"quick": {"seconds": 0.01}}},
    },
}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def test_a_worker_is_told_until_it_serves_the_stage(cluster: Cluster, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(PROFILE))
    front = await asyncio.to_thread(
        lambda: cluster.front(
            *("encoder", "told"), device="emulated:quick", profile=profile, pipeline="emulated-p",
            # One output fits its memory: what is not released holds up the next job.
            arena_bytes=1 << 20, slots=1, listen="127.0.0.1:0",
        )
    )  # fmt: skip
    host, _, port = front.address.rpartition(":")
    workers = GrpcWorkers(int(port))

    async def told(stage: str) -> bool:
        return await workers.change(host, "told", stage, None, PATIENCE)

    async with Worker(front.address) as worker:
        await until(lambda: told("encoder"))
        with pytest.raises(FailedPreconditionError, match="told and not another"):
            await workers.change(host, "another", "dit", None, PATIENCE)
        assert await told("encoder")
        await worker.assign("first", pb.STAGE_ENCODER, generation())
        await worker.expect("done", output__job_id="first")
        await worker.assign("second", pb.STAGE_ENCODER, generation())
        await worker.expect("started", job_id="second")
        for _ in range(3):
            assert not await told("dit")
        assert list((await worker.describe()).stages) == [pb.STAGE_ENCODER]
        await worker.release("first")
        await worker.expect("done", output__job_id="second")
    await until(lambda: told("dit"))
    async with Worker(front.address) as worker:
        described = await worker.describe()
        assert list(described.stages) == [pb.STAGE_DIT]
        # It serves it already, and nothing happens to its engine.
        assert await told("dit")
        assert (await worker.describe()).engine_pid == described.engine_pid
    front.stop()
    with pytest.raises(UnavailableError):
        await told("decoder")


async def test_a_worker_that_leaves_changes_no_more(cluster: Cluster, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(PROFILE))
    front = await asyncio.to_thread(
        lambda: cluster.front(
            *("encoder", "leaves"), device="emulated:quick", profile=profile,
            pipeline="emulated-p", arena_bytes=1 << 20, slots=1, drain_seconds=60,
            listen="127.0.0.1:0",
        )
    )  # fmt: skip
    host, _, port = front.address.rpartition(":")
    async with Worker(front.address) as worker:
        await worker.assign("first", pb.STAGE_ENCODER, generation())
        await worker.expect("done", output__job_id="first")
        draining = asyncio.ensure_future(worker.stub.Drain(stage_pb2.DrainRequest()))

        async def drains() -> bool:
            return (await worker.describe()).state == stage_pb2.WORKER_STATE_DRAINING

        await until(drains)
        with pytest.raises(FailedPreconditionError, match="the worker is"):
            await GrpcWorkers(int(port)).change(host, "leaves", "dit", None, PATIENCE)
        await worker.release("first")
        await draining
