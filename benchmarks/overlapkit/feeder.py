"""The DiT's neighbours in one process: an encoder that always has work, a decoder that is fast."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc

from benchmarks.overlapkit.workload import Workload
from disagfusion.rpc.channel import open_channel
from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import (
    Inbox,
    Message,
    MessageHeader,
    PeerAddress,
    PeerLostError,
    RefusalReason,
    RefusedError,
    Transport,
)
from disagfusion.transport.digest import Hold
from disagfusion.transport.testing import LinkShape, ShapedTransport
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2
from disagfusion.v1.stage_pb2_grpc import StageServiceStub

_SEND_SECONDS = 60.0


@dataclass
class Job:
    """What the feeder saw of a job, on the clock that all processes share.

    Attributes:
        fed: When its input was offered.
        input_seconds: How long the hand-over to the DiT took.
        output_seconds: How long the hand-over from the DiT took.
        delivered: When its output was here; 0 before.
    """

    fed: float
    input_seconds: float = 0.0
    output_seconds: float = 0.0
    delivered: float = 0.0


@dataclass
class _Sink:
    """The decoder's slots: an `Inbox` whose inputs are used up at once."""

    nbytes: int
    slots: int
    jobs: dict[str, Job]
    free: list[bytearray] = field(default_factory=list)
    filling: dict[str, bytearray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = [bytearray(self.nbytes) for _ in range(self.slots)]
        self.credits = asyncio.Semaphore(self.slots)

    def admit(self, header: MessageHeader) -> memoryview:
        if not self.free or header.nbytes > self.nbytes:
            raise RefusedError(RefusalReason.UNKNOWN_GRANT, "no slot for this")
        self.filling[header.job_id] = self.free.pop()
        return memoryview(self.filling[header.job_id])[: header.nbytes]

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        self.free.append(self.filling.pop(header.job_id))
        self.jobs[header.job_id].delivered = time.monotonic()
        self.credits.release()

    def dropped(self, header: MessageHeader, reason: str) -> None:
        self.free.append(self.filling.pop(header.job_id))


class Feeder:
    """Feeds a DiT's front, takes what it makes.

    Args:
        address: Where the front listens.
        shape: Of the link back.
        backend: What carries tensors.
        depth: Slots for its outputs, and hand-overs to it at a time.
        workload: What the DiT is given.

    Attributes:
        jobs: Everything that was fed.
        problems: What failed, by message.
        first: Set once the DiT has made something.
    """

    def __init__(
        self,
        address: str,
        shape: LinkShape,
        *,
        backend: str,
        depth: int,
        workload: Workload,
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self.problems: list[str] = []
        self.first = asyncio.Event()
        self._address = address
        self._incarnation = secrets.token_hex(16)
        self._sink = _Sink(-(-workload.latents_bytes // 64) * 64, depth, self.jobs)
        self._workload = workload
        self._input = memoryview(bytearray(workload.conditioning.nbytes))
        workload.conditioning.write(self._input)
        self._numbers = itertools.count()
        self._unsaid: asyncio.Queue[stage_pb2.WorkRequest] = asyncio.Queue()
        self._feeding = True
        self._tasks: set[asyncio.Task[None]] = set()

        def make(inbox: Inbox, hold: Hold) -> Transport:
            settings = TransportSettings(connections_per_peer=depth)
            return create(
                backend, inbox, incarnation=self._incarnation, settings=settings, hold=hold
            )

        self._transport = ShapedTransport(make, self._sink, shape, seed=2)

    async def __aenter__(self) -> Self:
        await self._transport.start()
        self._channel = open_channel(self._address)
        self._call: Any = StageServiceStub(self._channel).Work()
        hello = stage_pb2.GatewayHello(gateway="feeder", incarnation=self._incarnation)
        self._say(hello=hello)
        self._spawn(self._write())
        answer: Any = await self._call.read()
        first = answer.hello
        place = first.worker.address
        self._peer = PeerAddress(place.backend, place.incarnation, place.data)
        own = self._transport.address
        self._own = stage_pb2.PeerAddress(
            backend=own.backend, incarnation=own.incarnation, data=own.data
        )
        self._spawn(self._read(list(first.grant_ids)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._call.cancel()
        await self._channel.close()
        await self._transport.aclose()

    async def engine_pid(self) -> int:
        """Return the process id of the DiT's engine."""
        answer = await StageServiceStub(self._channel).Describe(stage_pb2.DescribeRequest())
        return int(answer.worker.engine_pid)

    def stop(self) -> None:
        """Feed nothing more."""
        self._feeding = False

    def _say(self, **message: Any) -> None:
        self._unsaid.put_nowait(stage_pb2.WorkRequest(**message))

    async def _write(self) -> None:
        # gRPC takes one message at a time.
        while True:
            await self._call.write(await self._unsaid.get())

    async def _read(self, grants: list[str]) -> None:
        for grant in grants:
            self._spawn(self._feed(grant))
        while (message := await self._call.read()) is not grpc.aio.EOF:
            match message.WhichOneof("message"):
                case "grants":
                    for grant in message.grants.grant_ids:
                        self._spawn(self._feed(grant))
                case "done":
                    self._spawn(self._take(message.done.output))
                case "sent":
                    self.first.set()
                    job = self.jobs[message.sent.output.job_id]
                    job.output_seconds = message.sent.send_seconds
                    self._release(message.sent.output)
                case "failed":
                    self.problems.append(message.failed.message)
                case "send_failed":
                    self.problems.append(message.send_failed.message)
                    self._sink.credits.release()
                    self._spawn(self._take(message.send_failed.output))

    async def _feed(self, grant: str) -> None:
        if not self._feeding:
            return
        name = f"job-{next(self._numbers)}"
        job = self.jobs[name] = Job(time.monotonic())
        assignment = stage_pb2.Assignment(
            job_id=name,
            attempt=1,
            stage=pb.STAGE_DIT,
            grant_id=grant,
            generation=self._workload.generation,
            input=stage_pb2.OutputKey(job_id=name, stage=pb.STAGE_ENCODER, attempt=1),
        )
        self._say(assign=assignment)
        header = MessageHeader(
            message_id=name,
            job_id=name,
            attempt=1,
            port="dit",
            grant_id=grant,
            sender=self._incarnation,
            source_stage="encoder",
            source_attempt=1,
            tensors=self._workload.conditioning.tensors,
            structure=self._workload.conditioning.structure,
            nbytes=self._input.nbytes,
        )
        while True:
            try:
                delivery = await self._transport.send(
                    self._peer, Message(header, (self._input,)), timeout=_SEND_SECONDS
                )
            except PeerLostError as error:
                self.problems.append(str(error))
            else:
                job.input_seconds = delivery.seconds
                return

    async def _take(self, output: stage_pb2.OutputKey) -> None:
        await self._sink.credits.acquire()
        asked = stage_pb2.SendOutput(
            output=output, attempt=1, grant_id=f"sink-{output.job_id}", to=self._own
        )
        self._say(send=asked)

    def _release(self, output: stage_pb2.OutputKey) -> None:
        release = stage_pb2.ReleaseOutput(
            job_id=output.job_id, stage=output.stage, attempt=output.attempt
        )
        self._say(release=release)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.problems.append(repr(task.exception()))
