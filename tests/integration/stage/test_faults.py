"""Engines that die or stand still, gateways that go, and fronts that are asked to end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from stagekit.driver import Driver, Worker, generation
from stagekit.processes import Cluster, Process, killed_with_its_engine

from disagfusion.rpc.channel import open_channel
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2

LONG = 400
"""More denoising steps than any of these tests waits for."""


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def run_long(driver: Driver, job: str) -> stage_pb2.OutputKey:
    """Have the DiT begin something long; return the encoder's output."""
    encoded = await driver.encode(job, generation(steps=LONG))
    await driver.hand_over(driver.encoder, driver.dit, encoded.output, generation(steps=LONG))
    await driver.dit.expect("step", job_id=job, step=2)
    return encoded.output


async def repeat(driver: Driver, output: stage_pb2.OutputKey) -> bytes:
    """Denoise and decode in a second attempt, from the encoder's held output."""
    asked = generation()
    latents = await driver.denoise(output, asked, attempt=2)
    decoded = await driver.decode(latents.output, asked, attempt=2)
    return await driver.decoder.fetch(decoded.output)


async def test_an_engine_killed_while_it_runs(driver: Driver, fronts: dict[str, Process]) -> None:
    undisturbed = await driver.generate("undisturbed", generation())
    output = await run_long(driver, "killed")
    before = await driver.dit.describe()
    os.kill(before.engine_pid, signal.SIGKILL)
    failed = (await driver.dit.expect("failed", job_id="killed")).failed
    assert failed.kind == stage_pb2.FAILURE_KIND_ENGINE_LOST
    assert "SIGKILL" in failed.message
    assert failed.record.pid == before.engine_pid
    assert failed.record.steps >= 2
    await driver.dit.expect("state", state=stage_pb2.WORKER_STATE_LOADING)
    assert await repeat(driver, output) == undisturbed
    after = await driver.dit.describe()
    assert after.engine_pid not in (0, before.engine_pid)
    assert after.incarnation == before.incarnation
    assert len(driver.encoder.all("started", job_id="killed")) == 1
    assert fronts["dit"].metric("disagfusion_engine_restarts_total") >= 1


async def test_an_output_survives_its_engine(driver: Driver) -> None:
    undisturbed = await driver.generate("undisturbed-2", generation())
    asked = generation()
    encoded = await driver.encode("survivor", asked)
    latents = await driver.denoise(encoded.output, asked)
    os.kill((await driver.dit.describe()).engine_pid, signal.SIGKILL)
    decoded = await driver.decode(latents.output, asked)
    os.kill((await driver.decoder.describe()).engine_pid, signal.SIGKILL)
    await driver.decoder.expect("state", state=stage_pb2.WORKER_STATE_LOADING)
    assert await driver.decoder.fetch(decoded.output) == undisturbed
    assert len(driver.dit.all("step", job_id="survivor")) == 4, "no step is repeated"


async def test_an_engine_that_is_stopped_is_replaced(driver: Driver) -> None:
    await run_long(driver, "stopped")
    pid = (await driver.dit.describe()).engine_pid
    os.kill(pid, signal.SIGSTOP)
    failed = (await driver.dit.expect("failed", job_id="stopped")).failed
    assert failed.kind == stage_pb2.FAILURE_KIND_ENGINE_LOST
    assert "stopped" in failed.message
    assert not alive(pid)
    await driver.generate("after-stopped", generation())


async def test_cancelling_takes_one_step(driver: Driver) -> None:
    await run_long(driver, "cancelled")
    await driver.dit.send(cancel=stage_pb2.CancelAssignment(job_id="cancelled", attempt=1))
    failed = (await driver.dit.expect("failed", job_id="cancelled")).failed
    assert failed.kind == stage_pb2.FAILURE_KIND_CANCELLED
    steps = [message.step.step for message in driver.dit.all("step", job_id="cancelled")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) < LONG
    pid = (await driver.dit.describe()).engine_pid
    await driver.generate("after-cancelled", generation())
    assert (await driver.dit.describe()).engine_pid == pid, "the same engine goes on"


async def test_a_front_goes_on_without_its_gateway(driver: Driver) -> None:
    asked = generation(steps=8)
    encoded = await driver.encode("alone", asked)
    async with Worker(driver.dit.address, "another") as dit:
        await driver.dit.__aexit__(None, None, None)
        await dit.ready()
        grant = await dit.grant()
        await driver.send(driver.encoder, dit, encoded.output, grant)
        await dit.assign("alone", pb.STAGE_DIT, asked, source=encoded.output, grant=grant)
        await dit.expect("started", job_id="alone")
    async with Worker(driver.dit.address, "another") as dit:
        running = [entry.job_id for entry in dit.hello.running]
        held = [entry.output.job_id for entry in dit.hello.held]
        assert "alone" in running + held
        if "alone" in running:
            await dit.expect("done", output__job_id="alone")
        await dit.release("alone")


async def test_a_request_that_is_wrong_costs_nobody_else(driver: Driver) -> None:
    wrong = generation()
    wrong.parameters["no_such_parameter"].int_value = 1
    grant = await driver.encoder.assign("wrong", pb.STAGE_ENCODER, wrong)
    assert grant
    failed = (await driver.encoder.expect("failed", job_id="wrong")).failed
    assert failed.kind == stage_pb2.FAILURE_KIND_INVALID_ARGUMENT
    assert "no_such_parameter" in failed.message
    await driver.generate("right", generation())


async def test_a_wrong_output_format_is_refused(driver: Driver) -> None:
    asked = generation(output_format=pb.OUTPUT_FORMAT_MP4)
    encoded = await driver.encode("format", asked)
    latents = await driver.denoise(encoded.output, asked)
    await driver.hand_over(driver.dit, driver.decoder, latents.output, asked)
    failed = (await driver.decoder.expect("failed", job_id="format")).failed
    assert failed.kind == stage_pb2.FAILURE_KIND_INVALID_ARGUMENT
    assert failed.message.startswith("output_format")


async def test_a_grant_is_used_once(driver: Driver) -> None:
    grant = await driver.encoder.assign("once", pb.STAGE_ENCODER, generation())
    await driver.encoder.expect("done", output__job_id="once")
    await driver.encoder.assign("again", pb.STAGE_ENCODER, generation(), grant=grant)
    failed = (await driver.encoder.expect("failed", job_id="again")).failed
    assert failed.kind == stage_pb2.FAILURE_KIND_REFUSED


async def test_a_stream_without_a_hello_is_refused(fronts: dict[str, Process]) -> None:
    worker = Worker(fronts["encoder"].address, gateway="")
    with pytest.raises((AssertionError, asyncio.InvalidStateError)):
        await worker.__aenter__()
    await worker.__aexit__(None, None, None)


@pytest.mark.parametrize("content", [b"\0" * 4096, b"GET / HTTP/1.1\r\n\r\n", os.urandom(65536)])
async def test_garbage_on_the_grpc_socket(
    driver: Driver, fronts: dict[str, Process], content: bytes
) -> None:
    path = fronts["dit"].address.removeprefix("unix:")
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(content)
        await writer.drain()
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()
    await driver.generate(f"garbage-{content[:3].hex()}", generation())


async def serving(address: str) -> bool:
    async with open_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        return answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_front_drains_and_ends(cluster: Cluster, driver: Driver) -> None:
    front = await asyncio.to_thread(cluster.front, "dit", "drained")
    asked = generation(steps=40)
    async with Worker(front.address) as dit:
        await dit.ready()
        assert await serving(front.address)
        engine = (await dit.describe()).engine_pid
        encoded = await driver.encode("drained", asked)
        await driver.hand_over(driver.encoder, dit, encoded.output, asked)
        await dit.expect("step", job_id="drained", step=1)
        await dit.assign("late", pb.STAGE_DIT, asked, source=encoded.output)
        front.popen.send_signal(signal.SIGTERM)
        await dit.expect("state", state=stage_pb2.WORKER_STATE_DRAINING)
        assert not await serving(front.address)
        late = (await dit.expect("failed", job_id="late")).failed
        assert late.kind == stage_pb2.FAILURE_KIND_REFUSED
        done = (await dit.expect("done", output__job_id="drained")).done
        assert front.popen.poll() is None, "the output has not been released"
        await driver.send(dit, driver.decoder, done.output, await driver.decoder.grant())
        await dit.expect("sent", output__job_id="drained")
        await dit.release("drained")
        # What arrived there is of no use any more; its slot is free again.
        await driver.decoder.send(cancel=stage_pb2.CancelAssignment(job_id="drained", attempt=1))
        assert await asyncio.to_thread(front.popen.wait, 30) == 0
    assert not alive(engine)


async def test_a_missing_model_is_said_and_not_tried_again_and_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    front = await asyncio.to_thread(cluster.front, "encoder", "missing", model=tmp_path / "none")
    async with Worker(front.address) as worker:
        await worker.until(
            lambda: (
                [m for m in worker.all("state") if m.state.reason] or worker.hello.worker.reason
            ),
            "the reason",
        )
        described = await worker.describe()
        assert described.state == stage_pb2.WORKER_STATE_LOADING
        assert "no such directory" in described.reason
        assert not worker.grants
    assert front.metric("disagfusion_engine_restarts_total") <= 1
    assert front.stop() == 0


async def test_engines_die_with_their_front(cluster: Cluster) -> None:
    front = await asyncio.to_thread(cluster.front, "decoder", "doomed")
    async with Worker(front.address) as worker:
        await worker.ready()
        engine = (await worker.describe()).engine_pid
    await killed_with_its_engine(front, engine)
