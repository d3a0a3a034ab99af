"""What becomes of jobs, and what their owners see, when nothing breaks."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from functools import partial
from typing import Any

import pytest
from gatewaykit import eventually
from gatewaykit.pipeline import MEDIA, SPEC, STEPS
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from disagfusion.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from disagfusion.rpc.channel import open_channel
from disagfusion.rpc.errors import from_status
from disagfusion.v1 import generation_pb2 as pb

PLACES = [
    ("encoder-0", "started", pb.JOB_STATE_ENCODING),
    ("dit-0", "assigned", pb.JOB_STATE_DENOISING),
    ("dit-0", "step", pb.JOB_STATE_DENOISING),
    ("decoder-0", "assigned", pb.JOB_STATE_DECODING),
    ("decoder-0", "started", pb.JOB_STATE_DECODING),
    ("decoder-0", "media", pb.JOB_STATE_DECODING),
]


async def test_a_job_goes_through_all_stages(bench: Any) -> None:
    stages, gateway, api = await bench.running()
    job = await api.submit(height=64)
    assert job.state == pb.JOB_STATE_QUEUED
    assert job.generation.HasField("seed")
    events = [event async for event in api.watch(job.job_id)]
    states = list(dict.fromkeys(event.state for event in events))
    assert states == [
        pb.JOB_STATE_QUEUED,
        pb.JOB_STATE_ENCODING,
        pb.JOB_STATE_DENOISING,
        pb.JOB_STATE_DECODING,
        pb.JOB_STATE_SUCCEEDED,
    ]
    durable = [event.sequence for event in events if not event.HasField("progress")]
    assert durable == list(range(1, len(durable) + 1))
    end = events[-1].job
    assert [record.stage for record in end.stages] == [1, 2, 3]
    assert end.accelerator_seconds == 1.5
    assert await api.fetch(job.job_id) == MEDIA
    assert await api.fetch(job.job_id, offset=len(MEDIA) - 3) == MEDIA[-3:]
    assert await api.get(job.job_id) == end
    assert gateway.metric("disagfusion_jobs_total", outcome="succeeded") == 1
    assert gateway.metric("disagfusion_gateway_queue_jobs") == 0
    assert stages["dit-0"].counts["steps"] == STEPS
    # Nothing stays with the workers.
    await eventually(lambda: not any(stage.held for stage in stages.by_name.values()))


async def test_progress_is_told_step_by_step(bench: Any) -> None:
    stages, _, api = await bench.running()
    gate = stages["dit-0"].hold("step")
    job = await api.submit()
    seen = []
    async for event in api.watch(job.job_id):
        if event.HasField("progress"):
            assert event.state == pb.JOB_STATE_DENOISING
            assert event.progress.num_inference_steps == STEPS
            seen.append(event.progress.step)
            gate.open()
            gate = stages["dit-0"].hold("step") if len(seen) < STEPS else gate
    stages.by_name["dit-0"].release_all()
    assert seen == [1, 2, 3]


async def test_many_at_once(bench: Any) -> None:
    stages, gateway, api = await bench.running(dits=2)
    jobs = await asyncio.gather(*(api.submit(f"number {n}") for n in range(60)))
    ends = await asyncio.gather(*(api.end_of(job.job_id) for job in jobs))
    assert {end.state for end in ends} == {pb.JOB_STATE_SUCCEEDED}
    assert {end.attempt for end in ends} == {1}
    assert gateway.metric("disagfusion_jobs_total", outcome="succeeded") == 60
    assert all(stages[name].counts["done"] > 5 for name in ("dit-0", "dit-1"))
    for status in ("waiting", "transferring", "running"):
        for stage in ("encoder", "dit", "decoder"):
            name = "disagfusion_stage_jobs"
            assert gateway.metric(name, stage=stage, status=status) == 0
    await eventually(lambda: not any(stage.held for stage in stages.by_name.values()))


async def test_a_watch_goes_on_where_it_was(bench: Any) -> None:
    _, _, api = await bench.running()
    job = await api.submit()
    await api.end_of(job.job_id)
    everything = [event async for event in api.watch(job.job_id)]
    last = everything[-1].sequence
    assert [event async for event in api.watch(job.job_id, last - 2)] == everything[-2:]
    assert [event async for event in api.watch(job.job_id, last)] == []
    for wrong in (-1, last + 1):
        with pytest.raises(InvalidArgumentError, match="after_sequence"):
            [event async for event in api.watch(job.job_id, wrong)]


async def test_a_client_that_goes_away_ends_nothing(bench: Any) -> None:
    stages, _, api = await bench.running()
    gate = stages["dit-0"].hold("started")
    other = bench.api()
    job = await other.submit()
    watch = other.watch(job.job_id)
    await anext(watch)
    await gate.reached.wait()
    await watch.aclose()
    await other.close()
    gate.open()
    assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize(("name", "place", "state"), PLACES)
async def test_cancel_in_every_state(bench: Any, name: str, place: str, state: int) -> None:
    stages, gateway, api = await bench.running()
    gate = stages[name].hold(place)
    job = await api.submit()
    await gate.reached.wait()
    # What a worker does may be durable a moment later.
    await api.until(job.job_id, state)
    cancelled = await api.cancel(job.job_id)
    assert cancelled.state == pb.JOB_STATE_CANCELLED
    assert (await api.cancel(job.job_id)).state == pb.JOB_STATE_CANCELLED
    events = [event async for event in api.watch(job.job_id)]
    assert events[-1].state == pb.JOB_STATE_CANCELLED
    stages[name].release_all()
    # The worker is free for the next one, and nothing of the cancelled one is left anywhere.
    assert (await api.end_of((await api.submit()).job_id)).state == pb.JOB_STATE_SUCCEEDED
    await eventually(lambda: not any(stage.held for stage in stages.by_name.values()))
    await eventually(lambda: not any(stage.assignments for stage in stages.by_name.values()))
    await eventually(lambda: len(list(bench.directory.glob("results/*/*"))) == 1)
    assert gateway.metric("disagfusion_jobs_total", outcome="cancelled") == 1


async def test_cancel_in_the_queue(bench: Any) -> None:
    stages, _, api = await bench.running()
    gate = stages["encoder-0"].hold("assigned")
    jobs = [await api.submit() for _ in range(4)]
    await gate.reached.wait()
    assert (await api.get(jobs[-1].job_id)).state == pb.JOB_STATE_QUEUED
    assert (await api.cancel(jobs[-1].job_id)).state == pb.JOB_STATE_CANCELLED
    stages["encoder-0"].release_all()
    for job in jobs[:-1]:
        assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED
    assert stages["encoder-0"].counts["assigned"] == 3
    assert (await api.cancel(jobs[0].job_id)).state == pb.JOB_STATE_SUCCEEDED


async def test_a_deadline_that_passes(bench: Any) -> None:
    stages, gateway, api = await bench.running()
    gate = stages["dit-0"].hold("started")
    job = await api.submit(timeout=Duration(nanos=500_000_000))
    await gate.reached.wait()
    end = await api.end_of(job.job_id)
    assert end.state == pb.JOB_STATE_EXPIRED
    assert isinstance(from_status(end.error), DeadlineExceededError)
    await eventually(lambda: not stages["dit-0"].assignments)
    assert gateway.metric("disagfusion_jobs_total", outcome="expired") == 1


async def test_a_full_queue(bench: Any) -> None:
    stages, gateway, api = await bench.running(queue_limit=3)
    gate = stages["encoder-0"].hold("assigned")
    accepted = [await api.submit(client_request_id="first")]
    await gate.reached.wait()

    async def fill() -> None:
        while len(accepted) < 100:
            accepted.append(await api.submit())

    with pytest.raises(ResourceExhaustedError, match="queue is full") as caught:
        await fill()
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0
    repeated = await api.submit(client_request_id="first")
    assert repeated.job_id == accepted[0].job_id, "a repetition asks for nothing new"
    with pytest.raises(ResourceExhaustedError):
        await api.submit(client_request_id="second")
    queued = [(await api.get(job.job_id)).state for job in accepted].count(pb.JOB_STATE_QUEUED)
    assert queued == 3
    stages["encoder-0"].release_all()
    for job in accepted:
        assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED
    await api.submit()
    assert gateway.metric("disagfusion_jobs_refused_total", reason="QUEUE_FULL") == 2


async def test_a_full_disk_refuses_new_jobs(bench: Any) -> None:
    _, _, api = await bench.running(disk_reserve_bytes=2**60)
    with pytest.raises(ResourceExhaustedError, match="disk") as caught:
        await api.submit()
    assert caught.value.reason == "DISK_FULL"
    assert caught.value.retry_after
    assert not (await api.list()).jobs


async def test_a_results_volume_that_is_away_costs_no_job_an_attempt(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, _, api = await bench.running(
        retention_interval_seconds=0.05, retention_result_seconds=0.05
    )
    old = await api.end_of((await api.submit()).job_id)
    tried: Counter[str] = Counter()

    def away(call: str, *_: Any) -> None:
        tried[call] += 1
        raise OSError(errno.ESTALE, "Stale file handle")

    gate = stages["decoder-0"].hold("finished")
    job = await api.submit()
    await gate.reached.wait()
    with monkeypatch.context() as patched:
        for call in ("unlink", "replace", "fsync"):
            patched.setattr(os, call, partial(away, call))
        gate.open()
        # More often than a worker may fail to answer.
        await eventually(lambda: tried["fsync"] > 5)
        assert (await api.get(job.job_id)).state == pb.JOB_STATE_DECODING
    end = await api.end_of(job.job_id)
    assert (end.state, end.attempt) == (pb.JOB_STATE_SUCCEEDED, 1)
    assert stages["decoder-0"].counts["done"] == 2
    assert (await api.get(old.job_id)).state == pb.JOB_STATE_SUCCEEDED, "the gateway is there"


async def test_results_and_jobs_are_not_kept_for_ever(bench: Any) -> None:
    _, gateway, api = await bench.running(
        retention_result_bytes=len(MEDIA), retention_interval_seconds=0.05
    )
    first, second = await api.submit(), await api.submit()
    ends = [await api.end_of(job.job_id) for job in (first, second)]
    oldest = min(ends, key=lambda end: end.ended_at.ToNanoseconds())
    await eventually(lambda: len(list(bench.directory.glob("results/*/*"))) == 1)
    with pytest.raises(NotFoundError, match="no longer kept"):
        await api.fetch(oldest.job_id)
    assert (await api.get(oldest.job_id)).state == pb.JOB_STATE_SUCCEEDED
    await eventually(lambda: gateway.metric("disagfusion_result_bytes") == len(MEDIA))


async def test_a_repeated_submission_is_the_same_job(bench: Any) -> None:
    _, gateway, api = await bench.running()
    first = await api.submit("a", client_request_id="x", height=64)
    again = await api.submit("a", client_request_id="x", height=64)
    assert again.job_id == first.job_id
    assert again.generation.seed == first.generation.seed
    for other in ({"height": 32}, {"seed": 1}, {"priority": 1}, {"output_format": 1}):
        fields = {"height": 64, **other}
        with pytest.raises(AlreadyExistsError):
            await api.submit("a", client_request_id="x", **fields)
    await api.end_of(first.job_id)
    ended = await api.submit("a", client_request_id="x", height=64)
    assert ended.state == pb.JOB_STATE_SUCCEEDED
    assert gateway.metric("disagfusion_jobs_total", outcome="succeeded") == 1


async def test_priorities_and_listing(bench: Any) -> None:
    stages, _, api = await bench.running()
    gate = stages["encoder-0"].hold("assigned")
    blockers = [await api.submit("x") for _ in range(3)]
    await gate.reached.wait()
    low = await api.submit("low", priority=-5)
    high = await api.submit("high", priority=5)
    listed = await api.list(page_size=2)
    assert [job.job_id for job in listed.jobs] == [high.job_id, low.job_id]
    more = await api.list(page_size=10, page_token=listed.next_page_token)
    assert [job.job_id for job in more.jobs] == [job.job_id for job in reversed(blockers)]
    assert not more.next_page_token
    stages["encoder-0"].release_all()
    first, second = await asyncio.gather(api.end_of(high.job_id), api.end_of(low.job_id))
    assert first.started_at.ToNanoseconds() < second.started_at.ToNanoseconds()
    only = await api.list(states=[pb.JOB_STATE_FAILED])
    assert not only.jobs
    for wrong in ({"page_size": -1}, {"page_size": 1001}, {"page_token": "?"}, {"states": [0]}):
        with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
            await api.list(**wrong)


async def test_what_is_not_there(bench: Any) -> None:
    stages, _, api = await bench.running()
    for job_id in ("nobody", "", "x" * 100_000, "../../etc/passwd"):
        for call in (api.get, api.cancel, api.fetch, api.end_of):
            with pytest.raises(NotFoundError):
                await call(job_id)
    gate = stages["dit-0"].hold("started")
    job = await api.submit()
    await gate.reached.wait()
    await api.until(job.job_id, pb.JOB_STATE_DENOISING)
    with pytest.raises(FailedPreconditionError, match="DENOISING"):
        await api.fetch(job.job_id)
    gate.open()
    await api.end_of(job.job_id)
    with pytest.raises(NotFoundError, match="no output 7"):
        await api.fetch(job.job_id, index=7)
    for offset in (-1, len(MEDIA) + 1):
        with pytest.raises(InvalidArgumentError):
            await api.fetch(job.job_id, offset=offset)


async def test_the_pipeline_is_described(bench: Any) -> None:
    _, _, api = await bench.running()
    described = await api.pipeline()
    assert described.pipeline == "test"
    assert described.spec_json == SPEC.to_json()
    with pytest.raises(NotFoundError, match="'other' is not served"):
        await api.pipeline("other")
    with pytest.raises(NotFoundError, match="'other' is not served"):
        await api.submit(pipeline="other")


async def test_health_tells_when_calls_are_welcome(bench: Any) -> None:
    _, gateway, _ = await bench.running()
    async with open_channel(gateway.gateway.address) as channel:
        request = health_pb2.HealthCheckRequest(service="disagfusion.v1.GenerationService")
        response = await health_pb2_grpc.HealthStub(channel).Check(request)
        assert response.status == health_pb2.HealthCheckResponse.SERVING


async def test_images_reach_every_stage(bench: Any) -> None:
    import io

    from PIL import Image

    stages, _, api = await bench.running()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    job = await api.submit(images=[pb.InputImage(content=buffer.getvalue())])
    assert not job.generation.images
    gates = [stage.hold("assigned") for stage in stages.by_name.values()]
    for stage, gate in zip(stages.by_name.values(), gates, strict=True):
        await gate.reached.wait()
        images = stage.assignments[job.job_id].generation.images
        assert [(image.name, image.content) for image in images] == [("image", buffer.getvalue())]
        gate.open()
    assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED
