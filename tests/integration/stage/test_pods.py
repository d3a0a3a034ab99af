"""What a stage service does for whoever runs it in a container: probes, reasons, times, signals."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from stagekit.driver import Worker, generation
from stagekit.processes import Cluster, Process

from disagfusion.rpc.channel import open_channel
from disagfusion.v1 import generation_pb2, stage_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
STEPS = "disagfusion_stage_startup_timestamp_seconds"


@pytest.fixture
def termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv("DISAGFUSION_TERMINATION_LOG", str(path))
    return path


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
    return number


async def health(address: str, service: str) -> int:
    async with open_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
    return int(answer.status)


async def until_not_ready(address: str) -> None:
    async with open_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service="readiness")
        async for answer in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=30):
            if answer.status == NOT_SERVING:
                return


async def read(path: Path) -> str:
    return await asyncio.to_thread(path.read_text)


@asynccontextmanager
async def started(cluster: Cluster, stage: str, **settings: object) -> AsyncIterator[Process]:
    front = await asyncio.to_thread(lambda: cluster.front(stage, **settings))
    try:
        yield front
    finally:
        await asyncio.to_thread(front.stop, signal.SIGKILL)


async def test_a_wrong_model_is_said_and_the_front_stays(
    cluster: Cluster, termination_log: Path
) -> None:
    begin = time.monotonic()
    settings = {"model": "/models/nowhere", "fork_server": ""}
    async with started(cluster, "dit", **settings) as front, Worker(front.address) as worker:
        if not worker.hello.worker.reason:
            await worker.expect("state")
        described = await worker.describe()
        assert time.monotonic() - begin < 30
        assert described.state == stage_pb2.WORKER_STATE_LOADING
        assert described.reason == "model /models/nowhere: no such directory"
        assert await read(termination_log) == described.reason
        assert await health(front.address, "liveness") == SERVING
        assert await health(front.address, "readiness") == NOT_SERVING
        assert front.metric(STEPS, step="loaded") == 0
        assert await asyncio.to_thread(front.stop) == 0


@pytest.fixture
def fetched(tmp_path: Path, termination_log: Path) -> Path:
    """The report of a fetch; and a message of the container before this one."""
    termination_log.write_text("what the container before this one died of")
    report = tmp_path / "weights.json"
    report.write_text(f'{{"finished": {time.time() - 1}}}')
    return report


async def test_a_start_is_told_apart(
    cluster: Cluster, termination_log: Path, fetched: Path, port: int
) -> None:
    settings = {"weights_report": fetched, "probe_listen": f"127.0.0.1:{port}"}
    async with started(cluster, "encoder", **settings) as front:
        assert await health(f"127.0.0.1:{port}", "liveness") == SERVING
        async with Worker(front.address) as worker:
            await worker.ready()
        assert await health(f"127.0.0.1:{port}", "readiness") == SERVING
        at = {
            step: front.metric(STEPS, step=step)
            for step in ("fetched", "started", "listening", "loaded", "ready")
        }
        assert list(at) == sorted(at, key=lambda step: at[step])
        assert time.time() - 300 < at["fetched"] < at["ready"] < time.time()
        assert await read(termination_log) == ""


async def test_an_engine_that_loads_does_not_look_dead(
    cluster: Cluster, fork_server: str, tmp_path: Path
) -> None:
    # A server that takes the order and never forks: the engine is being started for ever.
    silent = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(silent))
        server.listen()
        async with started(cluster, "dit", fork_server=silent) as front:
            for _ in range(3):
                assert await health(front.address, "liveness") == SERVING
                assert await health(front.address, "readiness") == NOT_SERVING
            assert await asyncio.to_thread(front.stop) == 0


async def test_not_ready_comes_first_when_a_job_is_drained(cluster: Cluster) -> None:
    async with started(cluster, "encoder", drain_seconds=60) as front:
        async with Worker(front.address) as worker:
            await worker.ready()
            await worker.assign("job-1", generation_pb2.STAGE_ENCODER, generation())
            await worker.expect("done", output__job_id="job-1")
            front.popen.send_signal(signal.SIGTERM)
            # Its output is held until somebody releases it.
            await until_not_ready(front.address)
            assert await health(front.address, "liveness") == SERVING
            assert front.popen.poll() is None
            await worker.release("job-1")
            assert await asyncio.to_thread(front.popen.wait, 30) == 0


async def test_a_second_signal_ends_it_at_once(cluster: Cluster) -> None:
    async with started(cluster, "encoder", drain_seconds=600) as front:
        async with Worker(front.address) as worker:
            await worker.ready()
            await worker.assign("job-2", generation_pb2.STAGE_ENCODER, generation())
            await worker.expect("done", output__job_id="job-2")
            front.popen.send_signal(signal.SIGTERM)
            await until_not_ready(front.address)
            front.popen.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(front.popen.wait, 30) == 0


@pytest.mark.parametrize("stage", ["encoder", "dit", "decoder"])
def test_a_wrong_setting_is_left_for_kubernetes(stage: str, termination_log: Path) -> None:
    environment = {**os.environ, "DISAGFUSION_MODEL": "m", "DISAGFUSION_TRANSPORT_HOST": "0.0.0.0"}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", f"disagfusion_{stage}"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    problem = termination_log.read_text()
    assert re.match(f"disagfusion-{stage}: DISAGFUSION_TRANSPORT_ADVERTISE: must be", problem)
    assert ended.stderr.strip().splitlines()[-1] == problem
