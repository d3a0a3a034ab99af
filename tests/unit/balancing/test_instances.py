"""Two accounts of the same workers, and who is to leave."""

from __future__ import annotations

import pytest

from disagfusion.balancing.instances import Instance, Phase, instances, victim
from disagfusion.local.plan import ProcessState, ProcessStatus
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.predictors import ProfilePredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.v1 import fleet_pb2, stage_pb2
from disagfusion.v1 import generation_pb2 as pb

POOLS = {"dit-0": "a", "spare-0": "a"}
READY = stage_pb2.WORKER_STATE_READY
LOADING = stage_pb2.WORKER_STATE_LOADING
DRAINING = stage_pb2.WORKER_STATE_DRAINING


def process(role: str = "dit", state: ProcessState = ProcessState.READY) -> ProcessStatus:
    return ProcessStatus("dit-0", role, state, 7, 0)


def fleet(stage: int, state: int) -> fleet_pb2.GetFleetResponse:
    worker = fleet_pb2.FleetWorker(
        name="dit-0",
        stages=[pb.Stage.ValueType(stage)],
        state=stage_pb2.WorkerState.ValueType(state),
        state_seconds=3.0,
    )
    return fleet_pb2.GetFleetResponse(workers=[worker])


@pytest.mark.parametrize(
    ("told", "answer", "stage", "phase"),
    [
        (process(), fleet(pb.STAGE_DIT, READY), "dit", Phase.READY),
        (process(), fleet(pb.STAGE_DIT, LOADING), "dit", Phase.STARTING),
        (process(), fleet(pb.STAGE_DIT, DRAINING), "dit", Phase.DRAINING),
        # Told to be a decoder, and not one yet, whether it has heard of it or not.
        (process("decoder"), fleet(pb.STAGE_DIT, READY), "dit", Phase.DRAINING),
        (process("decoder"), fleet(pb.STAGE_DIT, DRAINING), "dit", Phase.DRAINING),
        (process("decoder"), fleet(pb.STAGE_DECODER, LOADING), "decoder", Phase.STARTING),
        # Not connected: it will be what the supervisor was told.
        (process("decoder"), None, "decoder", Phase.STARTING),
        (process(state=ProcessState.BACKOFF), fleet(pb.STAGE_DIT, READY), "dit", Phase.STARTING),
        (process(state=ProcessState.STOPPING), fleet(pb.STAGE_DIT, READY), "dit", Phase.DRAINING),
        (process(state=ProcessState.STOPPING), None, "dit", Phase.DRAINING),
    ],
)
def test_what_a_worker_is_about(
    told: ProcessStatus, answer: fleet_pb2.GetFleetResponse | None, stage: str, phase: Phase
) -> None:
    (found,) = instances([told], POOLS, answer)
    assert (found.place, found.phase) == (Place(stage, "a"), phase)


def test_what_has_no_process_holds_nothing() -> None:
    processes = [
        process(state=ProcessState.STOPPED),
        process(state=ProcessState.FAILED),
        ProcessStatus("gateway", "gateway", ProcessState.READY, 1, 0),
    ]
    assert instances(processes, POOLS, None) == []


PREDICTOR = ProfilePredictor(
    Profile.model_validate(
        {
            "pools": {"a": {"accelerators": 4}},
            "stages": {"dit": {"pools": {"a": {"model": {"per_step": 10}}}}},
        }
    )
)


def worker(name: str, steps: int = 0, elapsed: float = 0.0) -> Instance:
    job = None
    if steps:
        shape = fleet_pb2.JobShape(
            height=8, width=8, num_frames=1, num_inference_steps=steps,
            batch_size=1, sequence_length=1,
        )  # fmt: skip
        job = fleet_pb2.FleetJob(job_id="j", shape=shape, worker=name, elapsed_seconds=elapsed)
    return Instance(name, Place("dit", "a"), Phase.READY, 0.0, "dit", job)


def test_the_idle_one_leaves_then_the_one_that_will_have_done_soonest() -> None:
    # At a tenth of the time 3.9 real seconds are 39 of its 40: one is left.
    busy, nearly, overdue = worker("b", 1), worker("n", 4, 3.9), worker("o", 1, 5.0)
    assert victim([busy, nearly], PREDICTOR, 0.1) is nearly
    assert victim([busy, nearly, overdue], PREDICTOR, 0.1) is overdue
    idle = worker("i")
    assert victim([overdue, idle, busy], PREDICTOR, 0.1) is idle
    assert victim([], PREDICTOR, 0.1) is None
