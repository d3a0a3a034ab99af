"""What the operator asks a pipeline's gateways, and tells them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from disagfusion.v1 import fleet_pb2, generation_pb2, stage_pb2
from disagfusion_operator.scaling.gateways import Door, call

_SECONDS = 5.0
_STAGES = {
    generation_pb2.STAGE_ENCODER: "encoder",
    generation_pb2.STAGE_DIT: "dit",
    generation_pb2.STAGE_DECODER: "decoder",
}


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker as a gateway knows it.

    Attributes:
        name: The pod's.
        stages: That it does.
        version: Tag of model and images; empty until its model has loaded.
        takes_work: Whether it is ready.
        reason: Why not.
    """

    name: str
    stages: tuple[str, ...]
    version: str
    takes_work: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Jobs and workers as one or more gateways know them.

    Attributes:
        unfinished: Jobs that have not ended.
        jobs: Stage and version tag → jobs that began with that version and have not ended.
        workers: Those that are connected.
    """

    unfinished: int = 0
    jobs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    workers: tuple[WorkerReport, ...] = ()


def joined(fleets: Iterable[Fleet]) -> Fleet:
    """Return what several gateways know together: each has its own jobs, all have all workers."""
    jobs: Counter[tuple[str, str]] = Counter()
    workers: dict[str, WorkerReport] = {}
    unfinished = 0
    for fleet in fleets:
        unfinished += fleet.unfinished
        jobs.update(fleet.jobs)
        workers |= {worker.name: worker for worker in fleet.workers}
    return Fleet(unfinished, jobs, tuple(workers.values()))


class Gateways(ABC):
    """The internal port of gateways. Every method raises a `DisagfusionError` where it fails."""

    @abstractmethod
    async def fleet(self, door: Door) -> Fleet:
        """Return what a gateway knows."""

    @abstractmethod
    async def admit(self, door: Door, *, refuse: str) -> None:
        """Have a gateway refuse new jobs with a reason, or admit them again where it is empty."""

    @abstractmethod
    async def cancel(self, door: Door, reason: str) -> None:
        """Have a gateway cancel all unfinished jobs."""


class GrpcGateways(Gateways):
    """The internal port over gRPC."""

    async def fleet(self, door: Door) -> Fleet:
        """See `Gateways`."""
        # The cursors of nobody: what has happened before is of no interest.
        request = fleet_pb2.GetFleetRequest(state_only=True)
        return fleet_of(await call(door, "GetFleet", request, _SECONDS))

    async def admit(self, door: Door, *, refuse: str) -> None:
        """See `Gateways`."""
        request = fleet_pb2.SetAdmissionRequest(closed=bool(refuse), reason=refuse)
        await call(door, "SetAdmission", request, _SECONDS)

    async def cancel(self, door: Door, reason: str) -> None:
        """See `Gateways`."""
        await call(door, "CancelJobs", fleet_pb2.CancelJobsRequest(reason=reason), _SECONDS)


def fleet_of(answer: object) -> Fleet:
    """Return what a gateway's answer says."""
    assert isinstance(answer, fleet_pb2.GetFleetResponse)
    jobs = Counter((_STAGES[job.stage], tag_of(job.version)) for job in answer.jobs if job.version)
    workers = tuple(
        WorkerReport(
            name=one.name,
            stages=tuple(_STAGES[stage] for stage in one.stages if stage in _STAGES),
            version=tag_of(one.version),
            takes_work=one.state == stage_pb2.WORKER_STATE_READY,
            reason=one.reason,
        )
        for one in answer.workers
    )
    return Fleet(answer.unfinished, jobs, workers)


def tag_of(version: str) -> str:
    """Return the operator's part of a worker's version."""
    return version.rpartition("+")[2] if "+" in version else ""


async def ask_all(gateways: Gateways, doors: Sequence[Door]) -> Fleet:
    """Return what all gateways know together.

    Raises:
        DisagfusionError: One of them does not say it.
    """
    return joined(await asyncio.gather(*(gateways.fleet(door) for door in doors)))
