"""What a pipeline's gateway tells: the shapes of jobs, who computes what, and how long it took."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from disagfusion.balancing.instances import shape_of
from disagfusion.errors import DisagfusionError
from disagfusion.rpc.calls import translated
from disagfusion.rpc.channel import open_channel
from disagfusion.rpc.tls import TlsSettings
from disagfusion.scheduling.observation import Predictor
from disagfusion.scheduling.performance.samples import Sample
from disagfusion.scheduling.shapes import Shape, WeightedShape
from disagfusion.stage.numbers import stage_of
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import fleet_pb2
from disagfusion.v1.fleet_pb2_grpc import FleetServiceStub

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """How a gateway's internal port is reached.

    Attributes:
        address: `host:port`.
        key: For it.
        tls: For mutual TLS.
    """

    address: str
    key: str = field(default="", repr=False)
    tls: TlsSettings | None = None


async def call(door: Door, method: str, request: object, seconds: float) -> Any:
    """Call a gateway's FleetService, over a connection of its own, and return the answer.

    Args:
        door: Of the gateway.
        method: Of the service.
        request: What it takes.
        seconds: That it may take.

    Raises:
        DisagfusionError: The gateway does not answer in time, or refuses.
    """
    async with open_channel(door.address, tls=door.tls, api_key=door.key) as channel:
        with translated(door.address):
            return await getattr(FleetServiceStub(channel), method)(request, timeout=seconds)


class Gateways(ABC):
    """Asks gateways."""

    @abstractmethod
    async def fleet(
        self, door: Door, request: fleet_pb2.GetFleetRequest, seconds: float
    ) -> fleet_pb2.GetFleetResponse:
        """Return what there is to do and who does it.

        Args:
            door: Of which one.
            request: What is known already.
            seconds: That it may take.

        Raises:
            DisagfusionError: It does not answer, or refuses.
        """

    @abstractmethod
    async def record(
        self, door: Door, request: fleet_pb2.RecordDecisionRequest, seconds: float
    ) -> None:
        """Have a decision kept for those who want to know why.

        Args:
            door: Of which one.
            request: With the decision.
            seconds: That it may take.

        Raises:
            DisagfusionError: It does not answer, or refuses.
        """


class GrpcGateways(Gateways):
    """Asks them by gRPC."""

    async def fleet(
        self, door: Door, request: fleet_pb2.GetFleetRequest, seconds: float
    ) -> fleet_pb2.GetFleetResponse:
        """See `Gateways`."""
        answer: fleet_pb2.GetFleetResponse = await call(door, "GetFleet", request, seconds)
        return answer

    async def record(
        self, door: Door, request: fleet_pb2.RecordDecisionRequest, seconds: float
    ) -> None:
        """See `Gateways`."""
        await call(door, "RecordDecision", request, seconds)


class Correspondent:
    """Asks a pipeline's gateways, and remembers up to where it knows each.

    Args:
        gateways: Asks.
    """

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways
        self._last: dict[str, fleet_pb2.GetFleetResponse] = {}

    async def ask(self, doors: Sequence[Door], seconds: float) -> list[fleet_pb2.GetFleetResponse]:
        """Return the answers with the samples that are new; those that do not answer are left out.

        Args:
            doors: Of all gateways of a pipeline.
            seconds: That an answer may take.
        """
        found = await asyncio.gather(*(self._ask(one, seconds) for one in doors))
        addresses = {one.address for one in doors}
        self._last = {address: one for address, one in self._last.items() if address in addresses}
        return [answer for answer in found if answer is not None]

    async def tell(
        self, doors: Sequence[Door], decision: fleet_pb2.FleetDecision, seconds: float
    ) -> None:
        """Tell all gateways what was decided; those that do not answer are not told.

        Args:
            doors: Of all gateways of a pipeline.
            decision: The decision.
            seconds: That an answer may take.
        """
        request = fleet_pb2.RecordDecisionRequest(decision=decision)
        told = (self._gateways.record(one, request, seconds) for one in doors)
        for result in await asyncio.gather(*told, return_exceptions=True):
            if isinstance(result, DisagfusionError):
                _log.debug("the gateway was not told", why=result.message)
            elif result is not None:
                raise result

    async def _ask(self, door: Door, seconds: float) -> fleet_pb2.GetFleetResponse | None:
        request = fleet_pb2.GetFleetRequest()
        last = self._last.get(door.address)
        if last is not None:
            request.incarnation = last.incarnation
            request.samples_cursor = last.samples_cursor
            request.arrivals_cursor = last.arrivals_cursor
        try:
            answer = await self._gateways.fleet(door, request, seconds)
        except DisagfusionError as error:
            _log.debug("the gateway does not answer", gateway=door.address, why=error.message)
            return None
        self._last[door.address] = answer
        return answer


def served(answers: Sequence[fleet_pb2.GetFleetResponse]) -> dict[str, str]:
    """Return the stages of workers by name, of those that have one and do not change it."""
    found: dict[str, str] = {}
    for worker in (one for answer in answers for one in answer.workers):
        if len(worker.stages) == 1 and worker.changes_to in (0, worker.stages[0]):
            found[worker.name] = stage_of(worker.stages[0]).value
    return found


def samples_of(
    answer: fleet_pb2.GetFleetResponse, now: float, scale: float
) -> Iterator[tuple[Sample, str]]:
    """Yield the samples of an answer, each with the life of the worker that made it.

    Args:
        answer: A gateway's.
        now: By the clock that the samples' times are to be of.
        scale: Real seconds for one of that clock.
    """
    for one in answer.samples:
        ago = max(0.0, (answer.time.ToNanoseconds() - one.time.ToNanoseconds()) / 1e9)
        try:
            sample = Sample(
                stage_of(one.stage).value,
                one.pool,
                shape_of(one.shape),
                one.compute_seconds / scale,
                None,
                now - ago / scale,
            )
        except (ValueError, KeyError) as error:
            _log.warning("unusable sample", worker=one.worker, problem=str(error))
            continue
        yield sample, f"{one.worker}/{one.worker_incarnation}"


def mix_of(answers: Sequence[fleet_pb2.GetFleetResponse]) -> tuple[WeightedShape, ...]:
    """Return the shapes of the unfinished jobs and of those that came lately."""
    counts: Counter[Shape] = Counter()
    for answer in answers:
        for job in answer.jobs:
            _count(counts, job.shape, 1)
        for arrived in answer.arrived:
            _count(counts, arrived.shape, arrived.count)
    return tuple(
        WeightedShape(**shape.model_dump(), weight=count) for shape, count in counts.items()
    )


def _count(counts: Counter[Shape], message: fleet_pb2.JobShape, number: int) -> None:
    try:
        counts[shape_of(message)] += number
    except ValueError as error:
        _log.warning("unusable shape", problem=str(error))


def remaining(
    answers: Sequence[fleet_pb2.GetFleetResponse],
    pools: Mapping[str, str],
    predictor: Predictor,
    scale: float,
) -> dict[str, float]:
    """Return the real seconds that workers will still compute; those that are idle are left out.

    Args:
        answers: Of all gateways.
        pools: Of the workers.
        predictor: How long jobs take.
        scale: Real seconds for one of the predictor's.
    """
    found: dict[str, float] = {}
    for job in [job for answer in answers for job in answer.jobs]:
        if job.worker not in pools:
            continue
        try:
            seconds = predictor.seconds(
                stage_of(job.stage).value, pools[job.worker], shape_of(job.shape)
            )
        except (ValueError, KeyError):
            seconds = 0.0
        left = max(0.0, seconds * scale - job.elapsed_seconds)
        found[job.worker] = max(found.get(job.worker, 0.0), left)
    return found
