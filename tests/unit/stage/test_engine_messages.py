"""What an engine is told of a run."""

from disagfusion.stage.actions import RunOnEngine
from disagfusion.stage.engine_messages import run_message
from disagfusion.v1 import generation_pb2, stage_pb2


def test_a_run_says_whose_it_is() -> None:
    assignment = stage_pb2.Assignment(
        job_id="job-1",
        attempt=2,
        tenant="acme",
        generation=generation_pb2.Generation(prompt="a seven"),
    )
    run = run_message(RunOnEngine(7, assignment))
    assert (run.run_id, run.job_id, run.attempt, run.tenant) == (7, "job-1", 2, "acme")
    assert run.generation == assignment.generation
    assert not run.HasField("input")
