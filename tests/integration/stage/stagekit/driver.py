"""A gateway's part, played by hand: Work streams, and a job taken from stage to stage."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from disagfusion.rpc.channel import TlsSettings, open_channel
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2
from disagfusion.v1.stage_pb2_grpc import StageServiceStub

PATIENCE = 60.0
_incarnations = itertools.count(1)


class Worker:
    """A Work stream to one front; everything it said is in `said`."""

    def __init__(
        self, address: str, gateway: str = "driver", tls: TlsSettings | None = None
    ) -> None:
        self.address = address
        self.patience = PATIENCE
        self._tls = tls
        self.gateway = gateway
        self.said: list[stage_pb2.WorkResponse] = []
        self.grants: list[str] = []

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self.address, tls=self._tls)
        self.stub = StageServiceStub(self._channel)
        self._call: Any = self.stub.Work()
        self._news = asyncio.Condition()
        await self.send(
            hello=stage_pb2.GatewayHello(gateway=self.gateway, incarnation=str(next(_incarnations)))
        )
        self._reading = asyncio.create_task(self._read())
        self.hello = (await self.expect("hello")).hello
        self.grants += self.hello.grant_ids
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._call.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._channel.close()

    async def send(self, **message: Any) -> None:
        await self._call.write(stage_pb2.WorkRequest(**message))

    async def _read(self) -> None:
        try:
            async for message in self._call:
                async with self._news:
                    self.said.append(message)
                    self.grants += message.grants.grant_ids
                    self._news.notify_all()
        except (grpc.RpcError, asyncio.CancelledError):
            pass
        async with self._news:
            self.ended = True
            self._news.notify_all()

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        async with asyncio.timeout(self.patience), self._news:
            while not (found := condition()):
                assert not self._reading.done(), f"the stream ended before {what}"
                await self._news.wait()
            return found

    async def expect(self, kind: str, **fields: Any) -> stage_pb2.WorkResponse:
        """Wait for a message of this kind with these fields; the earliest counts."""

        def found() -> stage_pb2.WorkResponse | None:
            return next(iter(self.all(kind, **fields)), None)

        return await self.until(found, f"{kind} {fields}")

    def all(self, kind: str, **fields: Any) -> list[stage_pb2.WorkResponse]:
        """What it said of this kind so far."""
        return [
            message
            for message in self.said
            if message.WhichOneof("message") == kind
            and all(_field(getattr(message, kind), k) == v for k, v in fields.items())
        ]

    async def grant(self) -> str:
        await self.until(lambda: self.grants, "a grant")
        return self.grants.pop(0)

    async def describe(self) -> stage_pb2.Worker:
        return (await self.stub.Describe(stage_pb2.DescribeRequest())).worker

    async def ready(self) -> None:
        """Wait until grants are there, which is when the engine has loaded."""
        await self.until(lambda: self.grants, "a grant")

    async def assign(
        self,
        job_id: str,
        stage: int,
        generation: pb.Generation,
        *,
        attempt: int = 1,
        source: stage_pb2.OutputKey | None = None,
        grant: str | None = None,
    ) -> str:
        grant = grant or await self.grant()
        assignment = stage_pb2.Assignment(
            job_id=job_id,
            attempt=attempt,
            stage=stage,
            grant_id=grant,
            generation=generation,
            input=source,
        )
        await self.send(assign=assignment)
        return grant

    async def release(self, job_id: str, attempt: int = 1) -> None:
        await self.send(release=stage_pb2.ReleaseOutput(job_id=job_id, attempt=attempt))

    async def fetch(self, output: stage_pb2.OutputKey, index: int = 0) -> bytes:
        request = stage_pb2.FetchMediaRequest(output=output, index=index)
        chunks = [message.chunk async for message in self.stub.FetchMedia(request)]
        return b"".join(chunks)


def _field(message: Any, path: str) -> Any:
    for part in path.split("__"):
        message = getattr(message, part)
    return message


def generation(seed: int = 7, steps: int = 4, **fields: Any) -> pb.Generation:
    asked = pb.Generation(
        prompt=fields.pop("prompt", "a handwritten seven in red"),
        seed=seed,
        num_inference_steps=steps,
        height=fields.pop("height", 64),
        width=fields.pop("width", 64),
        **fields,
    )
    asked.parameters["max_sequence_length"].int_value = 32
    return asked


class Driver:
    """Takes jobs through encoder, DiT and decoder."""

    def __init__(self, encoder: Worker, dit: Worker, decoder: Worker) -> None:
        self.encoder, self.dit, self.decoder = encoder, dit, decoder

    async def encode(self, job: str, asked: pb.Generation, attempt: int = 1) -> stage_pb2.StageDone:
        await self.encoder.assign(job, pb.STAGE_ENCODER, asked, attempt=attempt)
        done = await self.encoder.expect("done", output__job_id=job, output__attempt=attempt)
        return done.done

    async def hand_over(
        self,
        source: Worker,
        target: Worker,
        output: stage_pb2.OutputKey,
        asked: pb.Generation,
        attempt: int = 1,
    ) -> None:
        """Assign the next stage and have its input sent."""
        grant = await target.grant()
        await self.send(source, target, output, grant, attempt)
        await target.assign(
            output.job_id, output.stage + 1, asked, attempt=attempt, source=output, grant=grant
        )

    async def send(
        self,
        source: Worker,
        target: Worker,
        output: stage_pb2.OutputKey,
        grant: str,
        attempt: int = 1,
    ) -> None:
        await source.send(
            send=stage_pb2.SendOutput(
                output=output,
                attempt=attempt,
                grant_id=grant,
                to=target.hello.worker.address,
            )
        )

    async def denoise(
        self, output: stage_pb2.OutputKey, asked: pb.Generation, attempt: int = 1
    ) -> stage_pb2.StageDone:
        await self.hand_over(self.encoder, self.dit, output, asked, attempt)
        done = await self.dit.expect("done", output__job_id=output.job_id, output__attempt=attempt)
        return done.done

    async def decode(
        self, output: stage_pb2.OutputKey, asked: pb.Generation, attempt: int = 1
    ) -> stage_pb2.StageDone:
        await self.hand_over(self.dit, self.decoder, output, asked, attempt)
        done = await self.decoder.expect(
            "done", output__job_id=output.job_id, output__attempt=attempt
        )
        return done.done

    async def generate(self, job: str, asked: pb.Generation, *, release: bool = True) -> bytes:
        """Take a job all the way; return its first file, verified."""
        encoded = await self.encode(job, asked)
        latents = await self.denoise(encoded.output, asked)
        decoded = await self.decode(latents.output, asked)
        content = await self.decoder.fetch(decoded.output)
        assert len(content) == decoded.media[0].size_bytes
        assert hashlib.sha256(content).hexdigest() == decoded.media[0].sha256
        if release:
            for worker in (self.encoder, self.dit, self.decoder):
                await worker.release(job)
        return content
