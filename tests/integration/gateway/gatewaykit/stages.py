"""A stage service as a gateway sees it, over real gRPC, whose work tests can hold up anywhere."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc

from disagfusion.errors import NotFoundError
from disagfusion.jobs.model import Stage
from disagfusion.rpc.server import RpcServer
from disagfusion.rpc.tls import TlsSettings
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2 as wire
from disagfusion.v1.stage_pb2_grpc import StageServiceServicer, add_StageServiceServicer_to_server

from .pipeline import MEDIA, SPEC, STEPS

Key = tuple[str, int, int]


class Gate:
    """A place where work waits."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    def open(self) -> None:
        self.opened.set()


OUTPUT_BYTES = 1024


class Network:
    """Stands for the data plane: who has which grants."""

    def __init__(self) -> None:
        self.by_incarnation: dict[str, FakeStage] = {}


class FakeStage(StageServiceServicer):
    """One front without an engine.

    Attributes:
        counts: What was done: "assigned", "started", "steps", "done", "sent", "cancelled",
            "released", "refused", "hellos".
        gates: By place: "assigned", "started", "step", "finished", "media".
        failures: What the next assignments come to, in order: a kind and a message.
        link_seconds: How long its inputs take to arrive.
        silent: While set, it says nothing and hears nothing, as if it were stopped.
    """

    def __init__(
        self,
        stage: Stage,
        name: str,
        network: Network,
        *,
        incarnation: str = "1",
        slots: int = 2,
        pipeline: str = "test",
        version: str = "v1",
    ) -> None:
        self.stage = stage
        self.name = name
        self.incarnation = f"{name}.{incarnation}"
        self.network = network
        self.slots = slots
        self.pipeline = pipeline
        self.version = version
        self.counts: Counter[str] = Counter()
        self.gates: dict[str, Gate] = {}
        self.failures: list[tuple[wire.FailureKind.ValueType, str]] = []
        self.lose_sends = 0
        self.link_seconds = 0.0
        self.media_failures = 0
        self.state = wire.WORKER_STATE_READY
        self.assignments: dict[str, wire.Assignment] = {}
        self.held: dict[Key, wire.StageDone] = {}
        self.quarantined = asyncio.Event()
        self._grants = {f"{self.incarnation}.g{n}" for n in range(slots)}
        self._next_grant = slots
        self._inputs: dict[str, asyncio.Event] = {}
        self._work: dict[str, asyncio.Task[None]] = {}
        self._running: set[str] = set()
        self._streams: set[asyncio.Queue[wire.WorkResponse | None]] = set()
        self._awake = asyncio.Event()
        self._awake.set()
        self._engine = asyncio.Lock()
        network.by_incarnation[self.incarnation] = self

    async def start(self, address: str, tls: TlsSettings | None = None) -> str:
        self._server = RpcServer(address, ["disagfusion.v1.StageService"], tls=tls)
        add_StageServiceServicer_to_server(self, self._server.grpc)
        self.address = await self._server.start()
        return self.address

    async def stop(self) -> None:
        self._awake.set()
        for task in self._work.values():
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)
        self.break_streams()
        await self._server.stop(0)

    def hold(self, place: str) -> Gate:
        self.gates[place] = Gate()
        return self.gates[place]

    def release_all(self) -> None:
        for gate in self.gates.values():
            gate.open()
        self.gates.clear()

    def sleep(self) -> None:
        self._awake.clear()

    def wake(self) -> None:
        self._awake.set()

    def break_streams(self) -> None:
        for stream in self._streams:
            stream.put_nowait(None)

    def emit(self, **message: Any) -> None:
        for stream in self._streams:
            stream.put_nowait(wire.WorkResponse(**message))

    def worker(self) -> wire.Worker:
        return wire.Worker(
            name=self.name,
            incarnation=self.incarnation,
            stages=[pb.Stage.ValueType(int(self.stage))],
            pipeline=self.pipeline,
            pool="default",
            version=self.version,
            spec_json=SPEC.to_json(),
            state=self.state,
            address=wire.PeerAddress(
                backend="inproc", incarnation=self.incarnation, data=self.incarnation.encode()
            ),
            device="cpu",
            threads=1,
            slots=self.slots,
        )

    async def Work(self, requests: AsyncIterator[wire.WorkRequest], context: Any) -> Any:
        await self._awake.wait()
        first = await anext(requests)
        assert first.HasField("hello")
        stream: asyncio.Queue[wire.WorkResponse | None] = asyncio.Queue()
        reader = asyncio.create_task(self._read(requests, stream))
        await self._awake.wait()
        self.counts["hellos"] += 1
        self._streams.add(stream)
        try:
            yield wire.WorkResponse(hello=self._hello())
            while (message := await stream.get()) is not None:
                await self._awake.wait()
                yield message
        finally:
            self._streams.discard(stream)
            reader.cancel()

    def _hello(self) -> wire.WorkerHello:
        return wire.WorkerHello(
            worker=self.worker(),
            running=[
                wire.RunningAssignment(
                    job_id=a.job_id,
                    attempt=a.attempt,
                    stage=a.stage,
                    status=pb.STAGE_STATUS_RUNNING
                    if a.job_id in self._running
                    else pb.STAGE_STATUS_TRANSFERRING,
                )
                for a in self.assignments.values()
            ],
            held=list(self.held.values()),
            grant_ids=sorted(self._grants),
        )

    async def _read(
        self,
        requests: AsyncIterator[wire.WorkRequest],
        stream: asyncio.Queue[wire.WorkResponse | None],
    ) -> None:
        async for request in requests:
            await self._awake.wait()
            kind = request.WhichOneof("message")
            if kind == "ping":
                stream.put_nowait(wire.WorkResponse(pong=wire.Pong(nonce=request.ping.nonce)))
            elif kind == "assign":
                self._assign(request.assign)
            elif kind == "send":
                self._send(request.send)
            elif kind == "cancel":
                self._cancel(request.cancel)
            elif kind == "release":
                self._release(request.release)
            elif kind == "quarantine":
                self.quarantined.set()
        stream.put_nowait(None)

    def _assign(self, assignment: wire.Assignment) -> None:
        self.counts["assigned"] += 1
        job = assignment.job_id
        if assignment.grant_id not in self._grants or job in self.assignments:
            self.counts["refused"] += 1
            self._failed(assignment, wire.FAILURE_KIND_REFUSED, "unknown grant")
            return
        self._grants.discard(assignment.grant_id)
        self.assignments[job] = assignment
        self._input(assignment.grant_id)
        self._work[job] = asyncio.create_task(self._run(assignment))

    def _input(self, grant: str) -> asyncio.Event:
        return self._inputs.setdefault(grant, asyncio.Event())

    async def _pass(self, place: str) -> None:
        gate = self.gates.get(place)
        if gate is not None:
            gate.reached.set()
            await gate.opened.wait()

    async def _run(self, assignment: wire.Assignment) -> None:
        job, attempt = assignment.job_id, assignment.attempt
        try:
            await self._pass("assigned")
            if assignment.HasField("input"):
                await self._input(assignment.grant_id).wait()
                await asyncio.sleep(self.link_seconds)
                self.emit(
                    received=wire.InputReceived(
                        job_id=job,
                        attempt=attempt,
                        receive_seconds=self.link_seconds,
                        size_bytes=OUTPUT_BYTES,
                    )
                )
            async with self._engine:
                await self._compute(assignment)
        except asyncio.CancelledError:
            self.counts["cancelled"] += 1
            self._forget(assignment)
            self._failed(assignment, wire.FAILURE_KIND_CANCELLED, "cancelled")
            raise

    async def _compute(self, assignment: wire.Assignment) -> None:
        job, attempt = assignment.job_id, assignment.attempt
        self.counts["started"] += 1
        self._running.add(job)
        self.emit(started=wire.StageStarted(job_id=job, attempt=attempt, stage=assignment.stage))
        await self._pass("started")
        if self.failures:
            kind, message = self.failures.pop(0)
            self._forget(assignment)
            self._failed(assignment, kind, message)
            return
        if self.stage is Stage.DIT:
            for step in range(1, STEPS + 1):
                self.counts["steps"] += 1
                self.emit(
                    step=wire.StepCompleted(
                        job_id=job, attempt=attempt, step=step, num_inference_steps=STEPS
                    )
                )
                await self._pass("step")
        done = self._done(assignment)
        self.counts["done"] += 1
        self.held[(job, int(assignment.stage), attempt)] = done
        self._forget(assignment)
        hellos = self.counts["hellos"]
        await self._pass("finished")
        # A hello since then has told what is held; it is not said twice.
        if self.counts["hellos"] == hellos:
            self.emit(done=done)

    def _done(self, assignment: wire.Assignment) -> wire.StageDone:
        media = []
        if self.stage is Stage.DECODER:
            media = [
                pb.Output(
                    index=0,
                    content_type="image/png",
                    size_bytes=len(MEDIA),
                    height=64,
                    width=64,
                    num_frames=1,
                    sha256=hashlib.sha256(MEDIA).hexdigest(),
                )
            ]
        return wire.StageDone(
            output=wire.OutputKey(
                job_id=assignment.job_id, stage=assignment.stage, attempt=assignment.attempt
            ),
            size_bytes=OUTPUT_BYTES,
            media=media,
            record=pb.StageRecord(
                stage=assignment.stage,
                attempt=assignment.attempt,
                worker=self.name,
                pid=1,
                device="cpu",
                threads=1,
                compute_seconds=0.5,
                outcome="done",
            ),
        )

    def _forget(self, assignment: wire.Assignment) -> None:
        """The slot is free: the assignment ends and a new grant is issued."""
        self.assignments.pop(assignment.job_id, None)
        self._running.discard(assignment.job_id)
        self._work.pop(assignment.job_id, None)
        grant = f"{self.incarnation}.g{self._next_grant}"
        self._next_grant += 1
        self._grants.add(grant)
        self.emit(grants=wire.Grants(grant_ids=[grant]))

    def _failed(
        self, assignment: wire.Assignment, kind: wire.FailureKind.ValueType, message: str
    ) -> None:
        self.emit(
            failed=wire.StageFailed(
                job_id=assignment.job_id,
                attempt=assignment.attempt,
                stage=assignment.stage,
                kind=kind,
                message=message,
            )
        )

    def _send(self, send: wire.SendOutput) -> None:
        key = (send.output.job_id, int(send.output.stage), send.output.attempt)
        receiver = self.network.by_incarnation.get(send.to.data.decode())
        if self.lose_sends:
            self.lose_sends -= 1
            problem, lost = "lost on the way", False
        elif key not in self.held:
            problem, lost = "not held", True
        elif receiver is None:
            problem, lost = "no such receiver", False
        else:
            self.counts["sent"] += 1
            receiver._input(send.grant_id).set()
            self.emit(
                sent=wire.OutputSent(
                    output=send.output,
                    attempt=send.attempt,
                    size_bytes=OUTPUT_BYTES,
                    transport="inproc",
                )
            )
            return
        self.emit(
            send_failed=wire.SendFailed(
                output=send.output, attempt=send.attempt, output_lost=lost, message=problem
            )
        )

    def _cancel(self, cancel: wire.CancelAssignment) -> None:
        assignment = self.assignments.get(cancel.job_id)
        if assignment is not None and assignment.attempt <= cancel.attempt:
            task = self._work[cancel.job_id]
            task.cancel()

    def _release(self, release: wire.ReleaseOutput) -> None:
        self.counts["released"] += 1
        for job, stage, attempt in list(self.held):
            same_stage = release.stage in (pb.STAGE_UNSPECIFIED, stage)
            if job == release.job_id and same_stage and attempt <= release.attempt:
                del self.held[(job, stage, attempt)]

    async def Describe(self, request: wire.DescribeRequest, context: Any) -> wire.DescribeResponse:
        return wire.DescribeResponse(worker=self.worker())

    async def FetchMedia(self, request: wire.FetchMediaRequest, context: Any) -> Any:
        await self._awake.wait()
        await self._pass("media")
        key = (request.output.job_id, int(request.output.stage), request.output.attempt)
        if key not in self.held:
            raise NotFoundError("not held")
        for offset in range(request.offset, len(MEDIA), 65536):
            if self.media_failures and offset:
                self.media_failures -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken on the way")
            yield wire.FetchMediaResponse(chunk=MEDIA[offset : offset + 65536])

    async def Drain(self, request: wire.DrainRequest, context: Any) -> wire.DrainResponse:
        return wire.DrainResponse()
