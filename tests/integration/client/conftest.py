"""A gateway that is played: the real protocol, answers by a script."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from disagfusion.errors import InvalidArgumentError, NotFoundError, UnavailableError
from disagfusion.rpc.errors import abort, to_status
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import generation_pb2_grpc as services

CONTENT = bytes(range(256)) * 1024
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class PlayedGateway(services.GenerationServiceServicer):
    """Every job succeeds with `CONTENT`; connections break where a test asks for it."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.refusals: list[Exception] = []
        self.break_watch_after = 0
        self.break_fetch_after = 0
        self.state = pb.JOB_STATE_SUCCEEDED

    async def _enter(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        if self.refusals:
            await abort(context, self.refusals.pop(0))  # type: ignore[arg-type]

    def _job(self, state: pb.JobState.ValueType) -> pb.Job:
        job = pb.Job(
            job_id="j1",
            state=state,
            attempt=1,
            generation=pb.Generation(prompt="x", seed=2**64 - 1),
            stages=[
                pb.StageRecord(stage=pb.STAGE_DIT, attempt=1, pid=7, transport="ucx/shm"),
                pb.StageRecord(stage=pb.STAGE_DECODER, attempt=1, pid=8),
            ],
        )
        job.submitted_at.FromJsonString("2026-01-02T03:04:05.5Z")
        if state == pb.JOB_STATE_SUCCEEDED:
            job.outputs.add(
                content_type="video/mp4", size_bytes=len(CONTENT), sha256=SHA256, num_frames=9
            )
        elif state == pb.JOB_STATE_FAILED:
            job.error.CopyFrom(to_status(InvalidArgumentError("image", "is damaged")))
        return job

    async def SubmitJob(self, request: Any, context: Any) -> pb.SubmitJobResponse:
        await self._enter(request, context)
        return pb.SubmitJobResponse(job=self._job(pb.JOB_STATE_QUEUED))

    async def GetJob(self, request: Any, context: Any) -> pb.GetJobResponse:
        await self._enter(request, context)
        if request.job_id != "j1":
            await abort(context, NotFoundError(f"there is no job {request.job_id}"))
        return pb.GetJobResponse(job=self._job(self.state))

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        await self._enter(request, context)
        states = [pb.JOB_STATE_QUEUED, pb.JOB_STATE_ENCODING, pb.JOB_STATE_DENOISING]
        for sequence, state in enumerate([*states, self.state], 1):
            if sequence <= request.after_sequence:
                continue
            if self.break_watch_after and sequence > self.break_watch_after:
                self.break_watch_after = 0
                await abort(context, UnavailableError("the gateway restarts"))
            event = pb.JobEvent(sequence=sequence, state=state, attempt=1)
            if state == self.state:
                event.job.CopyFrom(self._job(state))
            yield pb.WatchJobResponse(event=event)

    async def CancelJob(self, request: Any, context: Any) -> pb.CancelJobResponse:
        await self._enter(request, context)
        return pb.CancelJobResponse(job=self._job(pb.JOB_STATE_CANCELLED))

    async def ListJobs(self, request: Any, context: Any) -> pb.ListJobsResponse:
        await self._enter(request, context)
        page = int(request.page_token or 0)
        token = str(page + 1) if page < 2 else ""
        return pb.ListJobsResponse(jobs=[self._job(self.state)], next_page_token=token)

    async def FetchOutput(
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.FetchOutputResponse]:
        await self._enter(request, context)
        for offset in range(request.offset, len(CONTENT), 50_000):
            if self.break_fetch_after and offset >= self.break_fetch_after:
                self.break_fetch_after = 0
                await abort(context, UnavailableError("the gateway restarts"))
            yield pb.FetchOutputResponse(chunk=CONTENT[offset : offset + 50_000])

    async def GetPipeline(self, request: Any, context: Any) -> pb.GetPipelineResponse:
        await self._enter(request, context)
        spec = (
            '{"family": "flux", "class_name": "FluxPipeline", "version": "v", "output": "image",'
            ' "workflows": [{"name": "text2image", "requires": {"prompt": true},'
            ' "inputs": ["prompt"]}]}'
        )
        return pb.GetPipelineResponse(pipeline="digits", spec_json=spec)


@pytest.fixture
def gateway() -> PlayedGateway:
    return PlayedGateway()


@pytest.fixture
def address(gateway: PlayedGateway) -> Iterator[str]:
    """Where the played gateway listens; it runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    started: list[str] = []
    ready, end = threading.Event(), asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server()
        services.add_GenerationServiceServicer_to_server(gateway, server)  # type: ignore[no-untyped-call]
        started.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        ready.set()
        await end.wait()
        await server.stop(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    yield started[0]
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()
