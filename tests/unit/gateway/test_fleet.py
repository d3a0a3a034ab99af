"""What a gateway tells balancers, followed from the dispatcher's events."""

from __future__ import annotations

from dataclasses import dataclass, field

from disagfusion_gateway.fleet import Fleet
from disagfusion_gateway.observe import ActiveJob

from disagfusion.dispatch import events
from disagfusion.jobs.model import JobState, Stage, StageRecord
from disagfusion.pipeline.spec import PipelineSpec, Workflow
from disagfusion.v1 import fleet_pb2, stage_pb2
from disagfusion.v1 import generation_pb2 as pb

SPEC = PipelineSpec(
    family="f", class_name="C", version="1", output="image",
    workflows=(Workflow(name="w", requires={"prompt": True}, inputs=("prompt",)),),
    defaults={"height": 64, "width": 32, "num_inference_steps": 8}, preset={}, size_multiple=1,
)  # fmt: skip


@dataclass
class World:
    spec: PipelineSpec | None = SPEC
    workers: list[stage_pb2.Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet = Fleet("one", lambda: self.workers, lambda: self.spec, 100.0)

    def submit(self, job_id: str, now: float, *, new: bool = True, **asked: int) -> None:
        generation = pb.Generation(prompt="p", **asked).SerializeToString()  # type: ignore[arg-type]
        job = ActiveJob("t", generation, False, now, None, "")
        self.fleet.entered(job_id, job, now, new=new)

    def ask(self, now: float, **cursors: object) -> fleet_pb2.GetFleetResponse:
        return self.fleet.describe(fleet_pb2.GetFleetRequest(**cursors), now)  # type: ignore[arg-type]

    def connect(self, stage: int, now: float) -> None:
        worker = stage_pb2.Worker(
            name="w", incarnation="i", pool="a", state=stage_pb2.WORKER_STATE_READY
        )
        worker.stages.append(pb.Stage.ValueType(stage))
        self.workers = [worker]
        info = events.WorkerInfo(
            "w", "i", frozenset({Stage(stage)}), "p", "1", events.WorkerState.READY, 2
        )
        self.fleet.happened(events.WorkerConnected(info), now)

    def done(self, job_id: str, stage: Stage, seconds: float, now: float) -> None:
        record = StageRecord(stage, 1, "w", compute_seconds=seconds)
        held = events.HeldOutput(events.OutputKey(job_id, stage, 1), 1, record=record)
        self.fleet.happened(events.StageDone("w", "i", held), now)


def test_a_job_from_its_arrival_to_its_end() -> None:
    world = World()
    world.connect(pb.STAGE_ENCODER, 100.0)
    world.submit("j", 100.0, num_inference_steps=2)
    (job,) = world.ask(104.0).jobs
    assert (job.stage, job.worker, job.age_seconds) == (pb.STAGE_ENCODER, "", 4.0)
    shape = job.shape
    assert (shape.height, shape.width, shape.num_inference_steps) == (64, 32, 2)
    assert (shape.num_frames, shape.batch_size, shape.sequence_length) == (1, 1, 1)
    world.fleet.happened(events.StageStarted("w", "i", "j", 1, Stage.ENCODER), 105.0)
    (job,) = world.ask(107.0).jobs
    assert (job.worker, job.elapsed_seconds) == ("w", 2.0)
    world.done("j", Stage.ENCODER, 2.5, 108.0)
    answer = world.ask(109.0)
    assert [(j.stage, j.worker) for j in answer.jobs] == [(pb.STAGE_DIT, "")]
    (sample,) = answer.samples
    assert (sample.stage, sample.pool, sample.compute_seconds) == (pb.STAGE_ENCODER, "a", 2.5)
    world.done("j", Stage.DIT, 1.0, 110.0)
    world.done("j", Stage.DECODER, 1.0, 111.0)
    assert not world.ask(111.0).jobs, "nothing is left to compute"
    world.fleet.changed("j", JobState.SUCCEEDED, 1, 112.0)
    assert not world.ask(112.0).jobs


def test_cursors_tell_what_is_new_and_whether_anything_was_missed() -> None:
    world = World()
    world.submit("a", 100.0)
    first = world.ask(101.0)
    assert (sum(one.count for one in first.arrived), first.complete) == (1, False)
    world.submit("b", 102.0)
    world.submit("c", 102.0)
    world.submit("d", 102.0, height=8)
    cursors = {"incarnation": "one", "arrivals_cursor": first.arrivals_cursor}
    second = world.ask(103.0, **cursors)
    assert second.complete
    assert {(one.shape.height, one.count) for one in second.arrived} == {(64, 2), (8, 1)}
    assert not world.ask(103.0, incarnation="another", arrivals_cursor=4).complete
    assert not world.ask(103.0, incarnation="one", arrivals_cursor=99).complete


def test_jobs_from_before_the_gateway_did_not_arrive() -> None:
    world = World(spec=None)
    world.submit("a", 90.0, new=False)
    assert not world.ask(100.0).jobs, "its shape is not known yet"
    world.spec = SPEC
    answer = world.ask(100.0)
    assert ([job.age_seconds for job in answer.jobs], list(answer.arrived)) == ([10.0], [])


def test_work_that_was_lost_waits_again() -> None:
    world = World()
    world.connect(pb.STAGE_ENCODER, 100.0)
    world.submit("j", 100.0)
    world.fleet.happened(events.StageStarted("w", "i", "j", 1, Stage.ENCODER), 101.0)
    world.fleet.happened(events.WorkerLost("w", "i", "gone"), 102.0)
    assert [job.worker for job in world.ask(102.0).jobs] == [""]
    # A later attempt begins where its input is held.
    world.done("j", Stage.ENCODER, 1.0, 103.0)
    world.fleet.changed("j", JobState.ENCODING, 2, 104.0)
    assert [job.stage for job in world.ask(104.0).jobs] == [pb.STAGE_ENCODER]


def test_seconds_are_busy_starved_or_blocked() -> None:
    world = World()
    world.connect(pb.STAGE_ENCODER, 100.0)
    world.submit("j", 104.0)
    world.fleet.happened(events.StageStarted("w", "i", "j", 1, Stage.ENCODER), 105.0)
    world.done("j", Stage.ENCODER, 2.0, 107.0)
    encoder = next(a for a in world.ask(108.0).activities if a.stage == pb.STAGE_ENCODER)
    assert (encoder.starved_seconds, encoder.blocked_seconds, encoder.busy_seconds) == (5, 1, 2)
    assert encoder.completed == 1


def test_a_worker_that_is_lost_is_told_until_it_is_back() -> None:
    world = World()
    world.connect(pb.STAGE_DIT, 100.0)
    assert not world.ask(101.0).lost
    world.workers = []
    world.fleet.happened(events.WorkerDisconnected("w", "i"), 102.0)
    world.fleet.happened(events.WorkerLost("w", "i", "no sign of life"), 103.0)
    (lost,) = world.ask(110.0).lost
    assert (lost.name, list(lost.stages), lost.pool) == ("w", [pb.STAGE_DIT], "a")
    assert (lost.reason, lost.seconds) == ("no sign of life", 7.0)
    world.connect(pb.STAGE_DIT, 111.0)
    assert not world.ask(112.0).lost
    world.workers = []
    world.fleet.happened(events.WorkerLost("w", "i", "again"), 120.0)
    assert world.ask(120.0 + 3599.0).lost
    assert not world.ask(120.0 + 3600.0).lost


def test_a_worker_that_drained_has_left_and_is_not_lost() -> None:
    for changes_to, lost in ((pb.STAGE_UNSPECIFIED, 0), (pb.STAGE_DECODER, 1)):
        world = World()
        world.connect(pb.STAGE_DIT, 100.0)
        world.workers[0].state = stage_pb2.WORKER_STATE_DRAINING
        world.workers[0].changes_to = changes_to
        info = events.WorkerInfo(
            "w", "i", frozenset({Stage.DIT}), "p", "1", events.WorkerState.DRAINING, 2
        )
        world.fleet.happened(events.WorkerStateChanged(info), 101.0)
        world.workers = []
        world.fleet.happened(events.WorkerLost("w", "i", "the stream ended"), 102.0)
        assert len(world.ask(103.0).lost) == lost


def test_the_budget_is_told() -> None:
    fleet = Fleet("one", list, lambda: SPEC, 100.0, budget=6)
    assert fleet.describe(fleet_pb2.GetFleetRequest(), 100.0).budget == 6


def test_versions_are_those_that_jobs_are_pinned_to() -> None:
    world = World()
    world.connect(pb.STAGE_ENCODER, 100.0)
    world.workers[0].version = "model-1+abc"
    world.submit("j", 100.0)
    assert [job.version for job in world.ask(101.0).jobs] == [""]
    world.fleet.pinned("j", "model-1+abc")
    world.fleet.pinned("unknown", "model-1+abc")
    answer = world.ask(102.0)
    assert [job.version for job in answer.jobs] == ["model-1+abc"]
    assert [worker.version for worker in answer.workers] == ["model-1+abc"]
    # It begins again, with whatever there is.
    world.fleet.pinned("j", "")
    assert [job.version for job in world.ask(103.0).jobs] == [""]


def test_the_state_alone_has_every_job_and_nothing_that_happened() -> None:
    world = World(spec=None)
    world.submit("a", 90.0, new=False)
    world.submit("b", 90.0)
    answer = world.ask(100.0, state_only=True)
    assert [job.job_id for job in answer.jobs] == ["a", "b"]
    assert not answer.jobs[0].HasField("shape")
    assert (answer.unfinished, list(answer.arrived), list(answer.samples)) == (2, [], [])
    assert world.ask(100.0).unfinished == 2
