"""Jobs go through three processes and come out as pictures."""

from __future__ import annotations

import asyncio
import io

import pytest
from PIL import Image
from stagekit.driver import Driver, Worker, generation
from stagekit.processes import Cluster, Process

from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2


async def test_a_picture_goes_through_three_processes(
    driver: Driver, fronts: dict[str, Process]
) -> None:
    content = await driver.generate("thread", generation())
    picture = Image.open(io.BytesIO(content))
    assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert len({channel for channel in picture.getextrema()}) > 1, "it is not of one colour"
    records = [
        worker.all("done", output__job_id="thread")[0].done.record
        for worker in (driver.encoder, driver.dit, driver.decoder)
    ]
    assert len({record.pid for record in records}) == 3
    assert not {record.pid for record in records} & {p.popen.pid for p in fronts.values()}
    assert [record.steps for record in records] == [0, 4, 0]
    assert all(record.device == "cpu" and record.threads == 1 for record in records)
    assert records[0].receive_seconds == 0 < records[1].receive_seconds
    assert all(record.bytes_out for record in records)
    sent = driver.encoder.all("sent", output__job_id="thread")[0].sent
    assert (sent.transport, sent.size_bytes) == ("tcp", records[0].bytes_out)
    assert driver.dit.all("received", job_id="thread")[0].received.size_bytes == sent.size_bytes
    steps = [message.step.step for message in driver.dit.all("step", job_id="thread")]
    assert steps == [1, 2, 3, 4]


async def test_equal_requests_are_equal_pictures_with_and_without_the_cache(
    cluster: Cluster, driver: Driver, fronts: dict[str, Process]
) -> None:
    asked = generation(prompt="a handwritten two in blue", seed=11)
    first = await driver.generate("cache-1", asked)
    hits = fronts["encoder"].metric("disagfusion_prompt_cache_requests_total", result="hit")
    second = await driver.generate("cache-2", asked)
    assert (
        fronts["encoder"].metric("disagfusion_prompt_cache_requests_total", result="hit")
        == hits + 1
    )
    front = await asyncio.to_thread(cluster.front, "encoder", "cacheless", prompt_cache_bytes=0)
    async with Worker(front.address) as encoder:
        await encoder.ready()
        third = await Driver(encoder, driver.dit, driver.decoder).generate("cache-3", asked)
    assert front.stop() == 0
    assert first == second == third
    other = await driver.generate("cache-4", generation(prompt="a handwritten two in red", seed=11))
    assert other != first


@pytest.mark.parametrize(("wanted", "name"), [("JPEG", "JPEG"), ("WEBP", "WEBP")])
async def test_other_formats(driver: Driver, wanted: str, name: str) -> None:
    asked = generation(output_format=pb.OutputFormat.Value(f"OUTPUT_FORMAT_{wanted}"))
    content = await driver.generate(f"format-{wanted}", asked)
    assert Image.open(io.BytesIO(content)).format == name


async def test_stages_overlap(driver: Driver) -> None:
    """The DiT's second input arrives while the first is computed."""
    asked = [generation(seed=seed, steps=60) for seed in (1, 2)]
    encoded = [await driver.encode(f"overlap-{i}", entry) for i, entry in enumerate(asked)]
    for entry, one in zip(encoded, asked, strict=True):
        await driver.hand_over(driver.encoder, driver.dit, entry.output, one)
    await driver.dit.expect("done", output__job_id="overlap-1")
    said = driver.dit.said
    received = next(i for i, m in enumerate(said) if m.received.job_id == "overlap-1")
    finished = next(i for i, m in enumerate(said) if m.done.output.job_id == "overlap-0")
    assert received < finished


async def test_nothing_is_left_after_two_hundred_jobs(
    driver: Driver, fronts: dict[str, Process]
) -> None:
    for number in range(200):
        await driver.generate(f"many-{number}", generation(seed=number, steps=1))
    for worker in (driver.encoder, driver.dit, driver.decoder):
        for held in worker.hello.held:
            await worker.release(held.output.job_id, held.output.attempt)
        await worker.send(ping=stage_pb2.Ping(nonce=1))
        await worker.expect("pong")
    for process in fronts.values():
        assert process.metric("disagfusion_held_bytes") == 0
        assert process.metric("disagfusion_held_outputs") == 0
        assert process.metric("disagfusion_slots", state="granted") == 2
        assert process.metric("disagfusion_slots") == 2
