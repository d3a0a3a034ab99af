"""What each worker of the embedded system is about: the supervisor's and the gateway's account."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from disagfusion.local.plan import ProcessState, ProcessStatus
from disagfusion.pipeline.stages import Stage
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.observation import Predictor
from disagfusion.scheduling.shapes import Shape
from disagfusion.stage.numbers import stage_of
from disagfusion.v1 import fleet_pb2, stage_pb2

_GONE = (ProcessState.STOPPED, ProcessState.FAILED)


class Phase(enum.Enum):
    """What a worker that holds accelerators is about."""

    STARTING = enum.auto()
    READY = enum.auto()
    DRAINING = enum.auto()
    """It finishes what it has; after that it changes its stage, or ends."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A worker that holds accelerators.

    Attributes:
        name: Of its process.
        place: Where it serves; where it will, if it starts.
        phase: What it is about.
        seconds: Real ones for which it has been; 0 where that is not known.
        wanted: The stage that it was told to have.
        running: The job that it computes, if any.
    """

    name: str
    place: Place
    phase: Phase
    seconds: float
    wanted: str
    running: fleet_pb2.FleetJob | None = None

    @property
    def unheard(self) -> bool:
        """Whether it was told to take another stage and does not know it yet."""
        return self.phase is Phase.DRAINING and self.wanted != self.place.stage


def instances(
    processes: Sequence[ProcessStatus],
    pools: Mapping[str, str],
    fleet: fleet_pb2.GetFleetResponse | None,
) -> list[Instance]:
    """Return the workers that hold accelerators.

    Args:
        processes: The supervisor's account: who is there, and what each was told to be.
        pools: Of every worker.
        fleet: The gateway's account: what they do; None where it could not be asked.
    """
    workers = {one.name: one for one in fleet.workers} if fleet else {}
    running = {one.worker: one for one in fleet.jobs if one.worker} if fleet else {}
    found = []
    for process in processes:
        if process.name not in pools or process.state in _GONE:
            continue
        worker = workers.get(process.name)
        stage, phase = _account(process, worker)
        found.append(
            Instance(
                process.name,
                Place(stage, pools[process.name]),
                phase,
                worker.state_seconds if worker else 0.0,
                process.role,
                running.get(process.name),
            )
        )
    return found


def _account(process: ProcessStatus, worker: fleet_pb2.FleetWorker | None) -> tuple[str, Phase]:
    if worker is None or not worker.stages or process.state is not ProcessState.READY:
        stopping = process.state is ProcessState.STOPPING
        return process.role, Phase.DRAINING if stopping else Phase.STARTING
    stage = stage_of(worker.stages[0]).value
    if stage != process.role:
        return stage, Phase.DRAINING
    match worker.state:
        case stage_pb2.WORKER_STATE_READY:
            return stage, Phase.READY
        case stage_pb2.WORKER_STATE_LOADING:
            return stage, Phase.STARTING
        case _:
            return stage, Phase.DRAINING


def shape_of(message: fleet_pb2.JobShape) -> Shape:
    """Return a shape from the wire.

    Raises:
        ValueError: It is none.
    """
    return Shape(
        height=message.height,
        width=message.width,
        num_frames=message.num_frames,
        num_inference_steps=message.num_inference_steps,
        batch_size=message.batch_size,
        sequence_length=message.sequence_length,
    )


def index_of(stage: int) -> int:
    """Return a stage's place in the pipeline.

    Raises:
        KeyError: There is no such stage.
    """
    return list(Stage).index(stage_of(stage))


def victim(
    candidates: Sequence[Instance], predictor: Predictor, time_scale: float
) -> Instance | None:
    """Return the one that is to leave: an idle one, or the one that will have done soonest.

    Args:
        candidates: Ready ones of one place.
        predictor: How long jobs take.
        time_scale: Real seconds for one of the predictor's.
    """

    def remaining(one: Instance) -> float:
        if one.running is None:
            return -1.0
        place, job = one.place, one.running
        seconds = predictor.seconds(place.stage, place.pool, shape_of(job.shape))
        return max(0.0, seconds - job.elapsed_seconds / time_scale)

    return min(reversed(candidates), key=remaining, default=None)
