"""A front that waits for every hand-over, for comparison."""

from __future__ import annotations

import pytest
from stagerig import GATEWAY, Rig

from disagfusion.stage.actions import Product
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2


@pytest.fixture
def rig() -> Rig:
    return Rig(synchronous=True).ready()


def send(rig: Rig, job: str) -> int:
    request = stage_pb2.SendOutput(output=rig.key(job).to_message(), attempt=1)
    (action,) = rig.do(rig.machine.send_output(GATEWAY, request, rig.now))
    return int(action.send_id)  # type: ignore[union-attr]


def test_one_grant_at_a_time_and_the_next_when_the_output_has_arrived(rig: Rig) -> None:
    assert len(rig.grants()) == 1
    rig.finish(rig.start("a"))
    assert len(rig.grants()) == 1, "the output has not been handed over"
    sending = send(rig, "a")
    assert rig.machine.transfer("sent") == "exposed"
    assert len(rig.grants()) == 1
    rig.do(rig.machine.sent(sending, 0.1, "tcp", rig.now))
    assert rig.machine.transfer("sent") is None
    assert len(rig.grants()) == 2


def test_a_send_that_failed_is_waited_for_until_somebody_lets_go(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    rig.do(rig.machine.send_failed(send(rig, "a"), "the network", rig.now))
    assert len(rig.grants()) == 1
    rig.do(rig.machine.release("a", pb.STAGE_DIT, 1, rig.now))
    assert len(rig.grants()) == 2


def test_a_job_that_failed_is_not_waited_for(rig: Rig) -> None:
    rig.assign("a", rig.grants()[0])
    rig.do(rig.machine.cancel("a", 1, rig.now))
    assert len(rig.grants()) == 2


def test_files_are_not_handed_over() -> None:
    rig = Rig(synchronous=True).ready()
    run = rig.start("a")
    rig.do(rig.machine.engine_needs_space(run, 100, rig.now))
    picture = pb.Output(content_type="image/png")
    rig.do(rig.machine.engine_finished(run, Product(100, media=(picture,)), rig.now))
    assert len(rig.grants()) == 2


def test_an_asynchronous_front_does_not_wait() -> None:
    rig = Rig().ready()
    rig.finish(rig.start("a"))
    send(rig, "a")
    assert rig.machine.transfer("sent") == "hidden"
    assert len(rig.grants()) == 3
