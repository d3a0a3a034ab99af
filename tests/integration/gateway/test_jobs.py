"""What becomes of jobs when nothing goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from gatewaykit.stages import MEDIA, STEPS

from disagfusion.v1 import generation_pb2 as pb


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
    async with asyncio.timeout(5):
        while any(stage.held for stage in stages.by_name.values()):
            await asyncio.sleep(0.01)
