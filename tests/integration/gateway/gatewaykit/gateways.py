"""A gateway in a process of its own, or in this one, and a client of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from disagfusion_gateway.app import Gateway
from disagfusion_gateway.settings import GatewaySettings

from disagfusion.errors import DisagfusionError
from disagfusion.rpc.channel import TlsSettings, api_key_metadata, open_channel
from disagfusion.rpc.errors import from_rpc_error
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1.generation_pb2_grpc import GenerationServiceStub

ENDED = (
    pb.JOB_STATE_SUCCEEDED,
    pb.JOB_STATE_FAILED,
    pb.JOB_STATE_CANCELLED,
    pb.JOB_STATE_EXPIRED,
)

WAITING = pb.STAGE_STATUS_WAITING


class Api:
    """What a client does; errors come as ours."""

    def __init__(self, address: str, *, api_key: str = "", tls: TlsSettings | None = None) -> None:
        self._channel = open_channel(address, tls=tls)
        self._stub = GenerationServiceStub(self._channel)
        self._metadata = api_key_metadata(api_key) if api_key else ()
        self._address = address

    async def close(self) -> None:
        await self._channel.close()

    async def _call(self, name: str, request: Any, **options: Any) -> Any:
        try:
            return await getattr(self._stub, name)(request, metadata=self._metadata, **options)
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self._address) from error

    async def submit(self, prompt: str = "a seven", **fields: Any) -> pb.Job:
        envelope = ("priority", "timeout", "client_request_id", "pipeline")
        around = {name: fields.pop(name) for name in envelope if name in fields}
        generation = pb.Generation(prompt=prompt, **fields)
        request = pb.SubmitJobRequest(generation=generation, **around)
        job: pb.Job = (await self._call("SubmitJob", request)).job
        return job

    async def get(self, job_id: str) -> pb.Job:
        job: pb.Job = (await self._call("GetJob", pb.GetJobRequest(job_id=job_id))).job
        return job

    async def cancel(self, job_id: str) -> pb.Job:
        job: pb.Job = (await self._call("CancelJob", pb.CancelJobRequest(job_id=job_id))).job
        return job

    async def list(self, **fields: Any) -> pb.ListJobsResponse:
        response: pb.ListJobsResponse = await self._call("ListJobs", pb.ListJobsRequest(**fields))
        return response

    async def pipeline(self, name: str = "") -> pb.GetPipelineResponse:
        request = pb.GetPipelineRequest(pipeline=name)
        response: pb.GetPipelineResponse = await self._call("GetPipeline", request)
        return response

    async def watch(self, job_id: str, after: int = 0) -> AsyncIterator[pb.JobEvent]:
        request = pb.WatchJobRequest(job_id=job_id, after_sequence=after)
        try:
            async for response in self._stub.WatchJob(request, metadata=self._metadata):
                yield response.event
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self._address) from error

    async def fetch(self, job_id: str, index: int = 0, offset: int = 0) -> bytes:
        request = pb.FetchOutputRequest(job_id=job_id, index=index, offset=offset)
        try:
            call = self._stub.FetchOutput(request, metadata=self._metadata)
            return b"".join([response.chunk async for response in call])
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self._address) from error

    async def end_of(self, job_id: str) -> pb.Job:
        """Watch a job to its end, across gateways that go away."""
        after = 0
        while True:
            try:
                async for event in self.watch(job_id, after):
                    after = event.sequence
                    if event.state in ENDED:
                        return event.job
            except DisagfusionError as error:
                if error.reason not in ("UNREACHABLE", "SHUTTING_DOWN", "CALL_CANCELLED"):
                    raise
                await asyncio.sleep(0.02)

    async def until(
        self, job_id: str, state: pb.JobState.ValueType, status: pb.StageStatus.ValueType = WAITING
    ) -> None:
        """Wait until a job's state is durable, or has been."""
        async for event in self.watch(job_id):
            if event.state == state and event.stage_status >= status:
                return
        raise AssertionError("the job ended before")


def environment(directory: Path, **settings: object) -> dict[str, str]:
    values: dict[str, object] = {
        "listen": f"unix:{directory}/gateway.sock",
        "database": f"sqlite:///{directory}/jobs.sqlite3",
        "results": directory / "results",
        "pipeline": "test",
        **settings,
    }
    return {f"DISAGFUSION_{name.upper()}": str(value) for name, value in values.items()}


class InProcess:
    """A gateway in this process."""

    def __init__(self, directory: Path, **settings: object) -> None:
        values = environment(directory, **settings)
        # As the process would read them: from text.
        fields = {name.removeprefix("DISAGFUSION_").lower(): text for name, text in values.items()}
        self.gateway = Gateway(GatewaySettings.model_validate(fields))

    async def start(self) -> str:
        await self.gateway.start()
        self._task = asyncio.create_task(self.gateway.run())
        return self.gateway.address

    async def stop(self) -> None:
        self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            pass
        finally:
            await self.gateway.stop()

    def metric(self, name: str, **labels: str) -> float:
        value = self.gateway._registry.get_sample_value(name, {"pipeline": "test", **labels})
        return value or 0.0


class Process:
    """A gateway in a process of its own, which can be killed and started again."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self._directory = directory
        self._ready = directory / "ready.json"
        self.environment = environment(directory, ready_file=self._ready, **settings)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        self._ready.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "disagfusion_gateway"),
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **self.environment},
        )
        while not self._ready.exists():
            assert self._process.returncode is None, "the gateway did not start"
            await asyncio.sleep(0.01)
        address: str = json.loads(self._ready.read_text())["address"]
        return address

    async def signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal that it survives."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until the process has ended by itself; one that hangs says where."""
        assert self._process is not None
        try:
            async with asyncio.timeout(60):
                return await self._process.wait()
        except TimeoutError:
            return await self.signal(signal.SIGABRT)

    async def kill(self) -> None:
        await self.signal(signal.SIGKILL)
