"""What workers say is believed only as far as it can be understood."""

from __future__ import annotations

import pytest
from disagfusion_gateway import worker_messages
from disagfusion_gateway.worker_messages import assignment_message, connected, event_of
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.dispatch import actions, events
from disagfusion.jobs.model import FailureKind, InputImage, Stage
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2 as wire


@given(st.binary(max_size=300))
def test_rubbish_is_an_event_or_refused(data: bytes) -> None:
    try:
        message = wire.WorkResponse.FromString(data)
    except DecodeError:
        return
    try:
        event_of("w", "1", message)
        connected(message.hello)
    except ValueError:
        pass


@given(st.integers(-(2**31), 2**31 - 1))
def test_failure_kinds_of_the_future_are_unspecified(number: int) -> None:
    failed = wire.StageFailed(job_id="j", attempt=1, stage=pb.STAGE_DIT, kind=number)  # type: ignore[arg-type]
    event = event_of("w", "1", wire.WorkResponse(failed=failed))
    assert isinstance(event, events.StageFailed)
    known = number in {int(kind) for kind in FailureKind}
    assert event.kind == (number if known else FailureKind.UNSPECIFIED)


@pytest.mark.parametrize("stage", [0, 4, -1])
def test_stages_of_the_future_are_not_understood(stage: int) -> None:
    started = wire.StageStarted(job_id="j", attempt=1, stage=stage)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a valid Stage"):
        event_of("w", "1", wire.WorkResponse(started=started))


def test_every_message_but_hello_and_pong_is_an_event() -> None:
    stage = {"stage": pb.STAGE_DIT}
    key = wire.OutputKey(job_id="j", attempt=1, **stage)
    worker = wire.Worker(name="w", stages=[pb.STAGE_DIT], state=wire.WORKER_STATE_READY)
    messages = {
        "grants": wire.Grants(grant_ids=["g"]),
        "received": wire.InputReceived(job_id="j", attempt=1),
        "started": wire.StageStarted(job_id="j", attempt=1, **stage),
        "step": wire.StepCompleted(job_id="j", attempt=1, step=1),
        "done": wire.StageDone(output=key),
        "failed": wire.StageFailed(job_id="j", attempt=1, **stage),
        "sent": wire.OutputSent(output=key, attempt=1),
        "send_failed": wire.SendFailed(output=key, attempt=1),
        "state": wire.WorkerStateChanged(worker=worker),
        "recall": wire.RecallGrants(grant_ids=["g"]),
        "handed_over": wire.HandedOver(held=[wire.StageDone(output=key)]),
    }
    for kind in wire.WorkResponse.DESCRIPTOR.fields_by_name:
        event = event_of("w", "1", wire.WorkResponse(**{kind: messages.get(kind)}))
        assert (event is not None) == (kind in messages), kind


def test_an_assignment_has_all_of_the_job() -> None:
    source = events.OutputKey("j", Stage.ENCODER, 1)
    action = actions.Assign("w", "1", "j", 2, Stage.DIT, "grant", source)
    message = assignment_message(
        action,
        generation=pb.Generation(prompt="p", seed=7).SerializeToString(),
        images=[InputImage("image", b"png")],
        deadline=12.5,
        traceparent="00-a-b-01",
        tenant="acme",
    ).assign
    assert (message.job_id, message.attempt, message.stage) == ("j", 2, pb.STAGE_DIT)
    assert message.input == worker_messages.key_message(source)
    assert message.generation.images[0].content == b"png"
    assert message.generation.seed == 7
    assert message.deadline.ToNanoseconds() == 12_500_000_000
    assert (message.traceparent, message.tenant) == ("00-a-b-01", "acme")
