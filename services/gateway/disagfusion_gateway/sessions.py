"""The workers that are connected, and what they say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import ValidationError

from disagfusion.errors import UnavailableError
from disagfusion.jobs.model import Stage
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import stage_pb2
from disagfusion_gateway.observe import Observer

if TYPE_CHECKING:
    from disagfusion.v1.stage_pb2_grpc import StageServiceAsyncStub

# A worker that reads nothing gets no more than this; its silence ends the session anyway.
_MAX_UNSENT = 10_000
# Of more that died nobody holds anything any more.
_MAX_FORMER = 64

_log = get_logger(__name__)


class Session:
    """One Work stream after both hellos; messages of an earlier one never enter a later one.

    Args:
        worker: As in the hello.
        stub: For the worker's other calls.

    Attributes:
        worker: As the worker last described itself.
        stub: For the worker's other calls.
        outgoing: Messages to be written, in order.
    """

    def __init__(self, worker: stage_pb2.Worker, stub: StageServiceAsyncStub) -> None:
        self.worker = worker
        self.stub = stub
        self.outgoing: asyncio.Queue[stage_pb2.WorkRequest] = asyncio.Queue()
        self._closed = False

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.worker.name

    @property
    def incarnation(self) -> str:
        """The worker's incarnation."""
        return self.worker.incarnation

    def send(self, message: stage_pb2.WorkRequest) -> None:
        """Write a message when its turn comes; nothing happens once the stream is broken."""
        if not self._closed and self.outgoing.qsize() < _MAX_UNSENT:
            self.outgoing.put_nowait(message)

    def take_over(self, gateways: Iterable[str]) -> None:
        """Have the worker hand over what it has of other gateways."""
        self.send(stage_pb2.WorkRequest(take_over=stage_pb2.TakeOver(gateways=gateways)))

    def demand(self, waiting: bool) -> None:
        """Tell the worker whether there is use for more grants."""
        self.send(stage_pb2.WorkRequest(demand=stage_pb2.Demand(waiting=waiting)))

    def close(self) -> None:
        """Drop what is not written yet and all that follows."""
        self._closed = True


class Sessions:
    """All sessions by worker, and the pipeline's specification as the workers describe it.

    Args:
        observer: Told of the workers.
        remembered: The specification that a worker described before this gateway began; empty
            where none is known. It counts where no worker comes.
    """

    def __init__(self, observer: Observer, remembered: str = "") -> None:
        self._observer = observer
        self._by_name: dict[str, Session] = {}
        self._former: dict[str, None] = {}
        self._spec: PipelineSpec | None = None
        self._spec_json = ""
        self._spec_known = asyncio.Event()
        self._remembered = remembered
        self._described = asyncio.Event()

    def get(self, name: str, incarnation: str = "") -> Session | None:
        """Return a worker's session; of this incarnation only, where one is given."""
        session = self._by_name.get(name)
        if session is None or (incarnation and session.incarnation != incarnation):
            return None
        return session

    def add(self, session: Session) -> None:
        """Add a session; it takes the place of one that the worker had."""
        self._by_name[session.name] = session
        self.described(session, session.worker)

    @property
    def names(self) -> frozenset[str]:
        """The workers that are connected."""
        return frozenset(self._by_name)

    @property
    def former(self) -> tuple[str, ...]:
        """Gateways whose jobs are this one's now."""
        return tuple(self._former)

    def take_over(self, gateways: Iterable[str]) -> None:
        """Have all workers hand over what they have of these gateways, now or when they connect."""
        found = sorted(gateways)
        self._former |= dict.fromkeys(found)
        for name in list(self._former)[:-_MAX_FORMER]:
            del self._former[name]
        for session in self._by_name.values():
            session.take_over(found)

    def demand(self, stage: Stage, waiting: bool) -> None:
        """Tell the workers of a stage whether there is use for more grants."""
        for session in self._by_name.values():
            if int(stage) in [int(one) for one in session.worker.stages]:
                session.demand(waiting)

    def remove(self, session: Session) -> None:
        """Remove a session, unless another has taken its place."""
        session.close()
        if self._by_name.get(session.name) is session:
            del self._by_name[session.name]
        self._observe()

    def described(self, session: Session, worker: stage_pb2.Worker) -> None:
        """Take note of what a worker says of itself."""
        session.worker = worker
        self._observe()
        # Those that leave may be of a version that has gone out of use.
        leaves = worker.state == stage_pb2.WORKER_STATE_DRAINING
        if worker.spec_json and worker.spec_json != self._spec_json and not leaves:
            try:
                self._spec = PipelineSpec.from_json(worker.spec_json)
            except ValidationError as error:
                _log.error("unusable specification", worker=worker.name, problem=str(error))
                return
            self._spec_json = worker.spec_json
            self._spec_known.set()
            self._described.set()

    async def described_anew(self) -> str:
        """Wait until a worker has described the pipeline otherwise than before; return that."""
        await self._described.wait()
        self._described.clear()
        return self._spec_json

    @property
    def workers(self) -> tuple[stage_pb2.Worker, ...]:
        """The workers, as they last described themselves."""
        return tuple(session.worker for session in self._by_name.values())

    @property
    def known_spec(self) -> PipelineSpec | None:
        """What the pipeline accepts; None before a worker has loaded it."""
        return self._spec

    async def spec(self, wait: float) -> PipelineSpec:
        """Return what the pipeline accepts.

        Args:
            wait: Seconds to wait for the first worker that has loaded.

        Raises:
            UnavailableError: None has, now or before.
        """
        if self._spec is None:
            try:
                async with asyncio.timeout(wait):
                    await self._spec_known.wait()
            except TimeoutError:
                self._recall()
        if self._spec is None:
            raise UnavailableError(
                "no worker has loaded the pipeline yet", reason="NOT_LOADED", retry_after=1.0
            )
        return self._spec

    def _recall(self) -> None:
        """Believe what was said before where all workers rest: one that loads may say otherwise."""
        if self._spec is None and self._remembered and not self._by_name:
            try:
                self._spec = PipelineSpec.from_json(self._remembered)
            except ValidationError:
                _log.warning("what was remembered of the pipeline is of another version")
                self._remembered = ""

    def _observe(self) -> None:
        self._observer.workers(list(self.workers))
