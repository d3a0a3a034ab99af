"""The link to one worker: its Work stream, made again whenever it breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc

from disagfusion.dispatch import events
from disagfusion.errors import DisagfusionError, FailedPreconditionError, UnavailableError
from disagfusion.rpc.channel import open_channel
from disagfusion.rpc.errors import from_rpc_error
from disagfusion.rpc.tls import TlsSettings
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import stage_pb2
from disagfusion.v1.stage_pb2_grpc import StageServiceStub
from disagfusion_gateway import worker_messages
from disagfusion_gateway.sessions import Session, Sessions

if TYPE_CHECKING:
    from disagfusion.v1.stage_pb2_grpc import StageServiceAsyncStub

_FIRST_BACKOFF = 0.05
_MAX_BACKOFF = 1.0
_HELLO_SECONDS = 5.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What all links have in common; times in seconds.

    Attributes:
        gateway: The gateway's name.
        incarnation: The gateway's incarnation.
        pipeline: Workers of another one are refused.
        tls: For mutual TLS.
        ping_interval: Between two pings.
        ping_deadline: After which a silent worker is given up.
        grace: In which a worker whose stream broke may come back.
        shares: Whether other gateways have jobs at the same workers.
    """

    gateway: str
    incarnation: str
    pipeline: str
    tls: TlsSettings | None
    ping_interval: float
    ping_deadline: float
    grace: float
    shares: bool = False


class _GivenUpError(Exception):
    """The worker is lost at once, without a grace; the text says why."""


class WorkerLink:
    """Keeps a Work stream to one address.

    Args:
        address: `host:port` or `unix:/path`.
        settings: What all links have in common.
        sessions: Where the session is entered while it lasts.
        post: Takes the events.

    Attributes:
        address: As given.
        connected: Whether there is a session.
    """

    def __init__(
        self,
        address: str,
        settings: LinkSettings,
        sessions: Sessions,
        post: Callable[[events.Event], None],
    ) -> None:
        self.address = address
        self.connected = False
        self._settings = settings
        self._sessions = sessions
        self._post = post
        self._known: tuple[str, str] | None = None
        self._loss: asyncio.TimerHandle | None = None
        self._heard = False

    @property
    def idle(self) -> bool:
        """Whether there is no session, and no worker that may yet come back or be lost."""
        return not self.connected and self._loss is None

    async def run(self) -> None:
        """Keep the stream until cancelled."""
        failures = 0
        told = ""
        try:
            while True:
                try:
                    await self._connect()
                    failures, told = 0, ""
                except DisagfusionError as error:
                    failures += 1
                    if error.message != told:
                        told = error.message
                        _log.warning("worker not reached", address=self.address, problem=told)
                # Full jitter, so that gateways do not return to a worker all at once.
                bound = min(_MAX_BACKOFF, _FIRST_BACKOFF * 2 ** min(failures, 10))
                await asyncio.sleep(random.uniform(0, bound))  # noqa: S311 - no secret
        finally:
            if self._loss is not None:
                self._loss.cancel()

    async def _connect(self) -> None:
        """Open a stream and serve it until it ends.

        Raises:
            DisagfusionError: There was no hello, or not a usable one.
        """
        async with open_channel(self.address, tls=self._settings.tls) as channel:
            stub = StageServiceStub(channel)
            # The type stubs know only calls that are given an iterator.
            call = cast(Any, stub.Work)()
            try:
                former = self._sessions.former
                worker, hello = await self._greet(call)
                session = self._session(worker, stub)
                if former != self._sessions.former:
                    # Another gateway has died since the greeting.
                    session.take_over(self._sessions.former)
                await self._serve(call, session, hello)
            finally:
                call.cancel()

    async def _greet(self, call: Any) -> tuple[stage_pb2.Worker, events.WorkerConnected]:
        greeting = stage_pb2.GatewayHello(
            gateway=self._settings.gateway,
            incarnation=self._settings.incarnation,
            shares=self._settings.shares,
            takes_over=self._sessions.former,
        )
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                await call.write(stage_pb2.WorkRequest(hello=greeting))
                first = await call.read()
        except TimeoutError:
            raise UnavailableError(f"no hello within {_HELLO_SECONDS:g} seconds") from None
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self.address) from error
        except asyncio.InvalidStateError as error:
            raise UnavailableError("the stream was closed before the hello") from error
        if not isinstance(first, stage_pb2.WorkResponse) or first.WhichOneof("message") != "hello":
            raise FailedPreconditionError("the worker's first message is not its hello")
        try:
            return first.hello.worker, worker_messages.connected(first.hello)
        except ValueError as error:
            raise FailedPreconditionError(f"the worker's hello is not usable: {error}") from error

    def _session(self, worker: stage_pb2.Worker, stub: StageServiceAsyncStub) -> Session:
        if worker.pipeline != self._settings.pipeline:
            raise FailedPreconditionError(
                f"worker {worker.name} serves the pipeline {worker.pipeline!r},"
                f" not {self._settings.pipeline!r}"
            )
        if self._sessions.get(worker.name) is not None:
            raise FailedPreconditionError(f"another address has a worker named {worker.name}")
        return Session(worker, stub)

    async def _serve(self, call: Any, session: Session, hello: events.WorkerConnected) -> None:
        identity = (session.name, session.incarnation)
        if self._loss is not None:
            self._loss.cancel()
            self._loss = None
        if self._known is not None and self._known != identity:
            self._lose("another process has taken its place")
        self._known = identity
        _log.info(
            "worker connected",
            worker=session.name,
            incarnation=session.incarnation,
            address=self.address,
            running=len(hello.running),
            held=len(hello.held),
        )
        self.connected = True
        self._sessions.add(session)
        try:
            self._post(hello)
            reason, grace = await self._until_end(call, session)
        finally:
            self.connected = False
            self._sessions.remove(session)
        _log.warning("worker disconnected", worker=session.name, problem=reason)
        self._post(events.WorkerDisconnected(*identity))
        if grace:
            loop = asyncio.get_running_loop()
            self._loss = loop.call_later(grace, self._lose, reason)
        else:
            self._lose(reason)

    async def _until_end(self, call: Any, session: Session) -> tuple[str, float]:
        """Serve a session; return why it ended and how long the worker may take to come back."""
        parts = (
            self._read(call, session),
            self._write(call, session),
            self._ping(session),
        )
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            error = task.exception() if not task.cancelled() else None
            if isinstance(error, _GivenUpError):
                return str(error), 0.0
            if isinstance(error, grpc.RpcError):
                return from_rpc_error(error).message, self._settings.grace
            if error is not None and not isinstance(error, asyncio.InvalidStateError):
                raise error
        return "the stream ended", self._settings.grace

    async def _read(self, call: Any, session: Session) -> None:
        self._heard = True
        while isinstance(message := await call.read(), stage_pb2.WorkResponse):
            self._heard = True
            try:
                event = self._event(session, message)
            except ValueError as error:
                raise _GivenUpError(f"it sent what cannot be understood: {error}") from error
            if event is not None:
                self._post(event)

    def _event(self, session: Session, message: stage_pb2.WorkResponse) -> events.Event | None:
        if message.WhichOneof("message") == "state":
            changed = message.state
            worker = stage_pb2.Worker()
            worker.CopyFrom(changed.worker if changed.HasField("worker") else session.worker)
            worker.state = changed.state
            worker.reason = changed.reason
            if (worker.name, worker.incarnation) != (session.name, session.incarnation):
                raise ValueError(f"a state of {worker.name}, incarnation {worker.incarnation}")
            event = events.WorkerStateChanged(worker_messages.worker_info(worker), changed.reason)
            self._sessions.described(session, worker)
            return event
        return worker_messages.event_of(session.name, session.incarnation, message)

    async def _write(self, call: Any, session: Session) -> None:
        while True:
            await call.write(await session.outgoing.get())

    async def _ping(self, session: Session) -> None:
        # Silence is counted in pings, not in seconds: a gateway that was held up itself, and has
        # not yet read what the worker said meanwhile, must not take that for silence.
        allowed = max(1, round(self._settings.ping_deadline / self._settings.ping_interval))
        nonce = unanswered = 0
        while unanswered < allowed:
            nonce += 1
            self._heard = False
            session.send(stage_pb2.WorkRequest(ping=stage_pb2.Ping(nonce=nonce)))
            await asyncio.sleep(self._settings.ping_interval)
            unanswered = 0 if self._heard else unanswered + 1
        raise _GivenUpError(f"no sign of life for {self._settings.ping_deadline:g} seconds")

    def _lose(self, reason: str) -> None:
        self._loss = None
        known, self._known = self._known, None
        if known is not None:
            _log.warning("worker lost", worker=known[0], incarnation=known[1], problem=reason)
            self._post(events.WorkerLost(*known, reason))
