"""The real service, over gRPC."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from disagfusion.client import messages
from disagfusion.client.transport import ClientTransport
from disagfusion.client.types import Job, JobEvent, JobPage, JobState, Pipeline, Submission
from disagfusion.errors import FailedPreconditionError
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.rpc.addresses import check_address
from disagfusion.rpc.calls import translated
from disagfusion.rpc.channel import open_channel
from disagfusion.rpc.tls import TlsSettings
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import generation_pb2_grpc as services

if TYPE_CHECKING:
    _Stub = services.GenerationServiceAsyncStub
else:
    # The type stubs alone know two kinds.
    _Stub = services.GenerationServiceStub


_first_used_by: list[int] = []


def _refuse_fork() -> None:
    # gRPC's threads do not come along, and its next call would crash the process.
    if not _first_used_by:
        _first_used_by.append(os.getpid())
    if _first_used_by[0] != os.getpid():
        raise FailedPreconditionError(
            "gRPC does not survive a fork: fork before the first client is made, "
            'or use multiprocessing\'s "spawn"',
            reason="FORKED",
        )


class GrpcTransport(ClientTransport):
    """Talks to a gateway. Make it within a running event loop.

    Args:
        address: `host:port` or `unix:/path`.
        api_key: Sent with every call, if not empty.
        tls: For mutual TLS.

    Raises:
        InvalidArgumentError: The address is none, or a TLS file is missing or damaged.
        FailedPreconditionError: This process was forked from one that used gRPC.
    """

    def __init__(self, address: str, *, api_key: str = "", tls: TlsSettings | None = None) -> None:
        check_address(address, "address")
        _refuse_fork()
        self._address = address
        self._channel = open_channel(address, tls=tls, api_key=api_key)
        self._stub = _Stub(self._channel)

    async def submit(self, submission: Submission) -> Job:
        """See `ClientTransport`."""
        request = messages.submit_request(submission)
        with translated(self._address):
            return messages.job_from((await self._stub.SubmitJob(request)).job)

    async def get(self, job_id: str) -> Job:
        """See `ClientTransport`."""
        with translated(self._address):
            answer = await self._stub.GetJob(pb.GetJobRequest(job_id=job_id))
        return messages.job_from(answer.job)

    async def watch(self, job_id: str, after_sequence: int) -> AsyncGenerator[JobEvent, None]:
        """See `ClientTransport`."""
        request = pb.WatchJobRequest(job_id=job_id, after_sequence=after_sequence)
        with translated(self._address):
            call = self._stub.WatchJob(request)
            try:
                async for answer in call:
                    yield messages.event_from(answer.event)
            finally:
                call.cancel()

    async def cancel(self, job_id: str) -> Job:
        """See `ClientTransport`."""
        with translated(self._address):
            answer = await self._stub.CancelJob(pb.CancelJobRequest(job_id=job_id))
        return messages.job_from(answer.job)

    async def list(self, page_size: int, page_token: str, states: Sequence[JobState]) -> JobPage:
        """See `ClientTransport`."""
        request = pb.ListJobsRequest(
            page_size=page_size, page_token=page_token, states=messages.state_values(states)
        )
        with translated(self._address):
            answer = await self._stub.ListJobs(request)
        return JobPage(tuple(map(messages.job_from, answer.jobs)), answer.next_page_token)

    async def fetch(self, job_id: str, index: int, offset: int) -> AsyncGenerator[bytes, None]:
        """See `ClientTransport`."""
        request = pb.FetchOutputRequest(job_id=job_id, index=index, offset=offset)
        with translated(self._address):
            call = self._stub.FetchOutput(request)
            try:
                async for answer in call:
                    yield answer.chunk
            finally:
                call.cancel()

    async def pipeline(self, name: str) -> Pipeline:
        """See `ClientTransport`."""
        with translated(self._address):
            answer = await self._stub.GetPipeline(pb.GetPipelineRequest(pipeline=name))
        return Pipeline(answer.pipeline, PipelineSpec.from_json(answer.spec_json))

    async def close(self) -> None:
        """See `ClientTransport`."""
        await self._channel.close(None)
