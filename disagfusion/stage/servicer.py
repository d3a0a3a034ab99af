"""The `StageService` of a front."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.actions import OutputKey
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.front import Front
from disagfusion.stage.numbers import stage_of
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import stage_pb2
from disagfusion.v1.stage_pb2_grpc import StageServiceServicer

_CHUNK_BYTES = 1 << 20

_log = get_logger(__name__)


class StageServicer(StageServiceServicer):
    """Thin: everything is the front's.

    Args:
        front: The front.
        configure: Returns what a stage's engine is told; refuses what cannot be here.
    """

    def __init__(self, front: Front, configure: Callable[[Stage], EngineConfig]) -> None:
        self._front = front
        self._configure = configure
        self._sessions = itertools.count(1)

    async def Describe(
        self, request: stage_pb2.DescribeRequest, context: Any
    ) -> stage_pb2.DescribeResponse:
        """Say who the worker is."""
        return stage_pb2.DescribeResponse(worker=self._front.machine.describe())

    async def Work(
        self, request_iterator: AsyncIterator[stage_pb2.WorkRequest], context: Any
    ) -> AsyncIterator[stage_pb2.WorkResponse]:
        """Take work from a gateway for as long as its stream lasts."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("message") != "hello":
            raise InvalidArgumentError("message", "is not a hello", expected="hello first")
        name = first.hello.gateway
        if not name:
            raise InvalidArgumentError("gateway", "is empty", expected="the gateway's name")
        if name in self._front.machine.gateways.replaced:
            raise FailedPreconditionError(
                f"another gateway has taken the place of {name}", reason="GATEWAY_REPLACED"
            )
        session = f"{name}/{first.hello.incarnation}/{next(self._sessions)}"
        outbox = self._front.connect(session, first.hello)
        _log.info("gateway connected", gateway=name)

        async def read() -> None:
            try:
                async for request in request_iterator:
                    self._front.handle(session, request)
            finally:
                outbox.close()

        reading = asyncio.create_task(read(), name="work-reader")
        try:
            async for response in outbox.drain():
                yield response
            if reading.done():
                # What it raised ends the stream with its status.
                reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._front.disconnect(session)
            _log.info("gateway disconnected", gateway=name)

    async def FetchMedia(
        self, request: stage_pb2.FetchMediaRequest, context: Any
    ) -> AsyncIterator[stage_pb2.FetchMediaResponse]:
        """Stream one encoded output."""
        pinned = self._front.pin(OutputKey.of(request.output))
        if pinned is None:
            raise NotFoundError("the output is not held here", reason="OUTPUT_NOT_HELD")
        held, memory = pinned
        try:
            media = held.product.media
            if not 0 <= request.index < len(media):
                raise NotFoundError(
                    f"output {request.index} of {len(media)}", reason="OUTPUT_NOT_HELD"
                )
            begin = sum(output.size_bytes for output in media[: request.index])
            size = media[request.index].size_bytes
            if not 0 <= request.offset <= size:
                raise InvalidArgumentError(
                    "offset", f"is {request.offset}", expected=f"0 to {size}"
                )
            for at in range(request.offset, size, _CHUNK_BYTES):
                end = min(at + _CHUNK_BYTES, size)
                chunk = bytes(memory[begin + at : begin + end])
                yield stage_pb2.FetchMediaResponse(chunk=chunk)
        finally:
            self._front.unpin(held)

    async def Drain(self, request: stage_pb2.DrainRequest, context: Any) -> stage_pb2.DrainResponse:
        """Take no new work and wait until nothing is left."""
        self._front.drain()
        await self._front.drained.wait()
        return stage_pb2.DrainResponse()

    async def ChangeStage(
        self, request: stage_pb2.ChangeStageRequest, context: Any
    ) -> stage_pb2.ChangeStageResponse:
        """Begin to take another stage."""
        try:
            stage = stage_of(request.stage)
        except KeyError:
            raise InvalidArgumentError(
                "stage", f"is {request.stage}", expected="the number of a stage"
            ) from None
        name = self._front.machine.describe().name
        if request.worker not in ("", name):
            raise FailedPreconditionError(
                f"the worker here is {name} and not {request.worker}", reason="OTHER_WORKER"
            )
        self._front.change_stage(stage, self._configure(stage))
        return stage_pb2.ChangeStageResponse(worker=self._front.machine.describe())
