"""What the machine holds after a run: sending, releasing, forgetting, draining."""

from __future__ import annotations

import pytest
from stagerig import GATEWAY, Rig, failures

from disagfusion.stage.actions import (
    Drained,
    SendOutput,
)
from disagfusion.transport.api import RefusedError
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2


def send(rig: Rig, job: str) -> list[object]:
    request = stage_pb2.SendOutput(output=rig.key(job).to_message(), attempt=1, grant_id="x")
    return list(rig.do(rig.machine.send_output(GATEWAY, request, rig.now)))


def test_an_output_stays_until_it_was_sent_even_if_released(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    (action,) = [a for a in send(rig, "a") if isinstance(a, SendOutput)]
    rig.do(rig.machine.release("a", 0, 1, rig.now))
    assert rig.machine.held.used > 0
    assert rig.machine.held.get(rig.key("a")) is None
    rig.do(rig.machine.sent(action.send_id, 0.25, "tcp", rig.now))
    assert rig.machine.held.used == 0
    sent = rig.told("sent")[0]
    assert (sent.transport, sent.send_seconds, sent.size_bytes) == ("tcp", 0.25, 100)


def test_an_output_that_could_not_be_sent_is_still_held(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    (action,) = [a for a in send(rig, "a") if isinstance(a, SendOutput)]
    rig.do(rig.machine.send_failed(action.send_id, "gone", rig.now))
    failed = rig.told("send_failed")[0]
    assert (failed.output_lost, failed.message) == (False, "gone")
    assert rig.machine.held.get(rig.key("a")) is not None


def test_an_output_that_is_not_held_is_lost(rig: Rig) -> None:
    send(rig, "nobody")
    assert rig.told("send_failed")[0].output_lost


def test_release_spares_newer_attempts_and_other_stages(rig: Rig) -> None:
    rig.finish(rig.start("a", attempt=3))
    rig.do(rig.machine.release("a", 0, 2, rig.now))
    rig.do(rig.machine.release("a", pb.STAGE_ENCODER, 3, rig.now))
    rig.do(rig.machine.release("b", 0, 3, rig.now))
    assert rig.machine.held.get(rig.key("a", 3)) is not None
    rig.do(rig.machine.release("a", pb.STAGE_DIT, 3, rig.now))
    assert rig.machine.held.used == 0


def test_an_output_stays_for_as_long_as_its_gateway(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    assert rig.machine.next_wakeup() is None
    rig.now += 10_000
    rig.do(rig.machine.tick(rig.now))
    assert [a for a in send(rig, "a") if isinstance(a, SendOutput)]


def test_a_gateway_that_comes_back_in_time_finds_its_outputs(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    rig.now += 10_000
    rig.do(rig.machine.disconnected(GATEWAY, rig.now))
    rig.now += 899
    rig.do(rig.machine.tick(rig.now))
    hello = rig.connect(session="gateway/2")
    assert [held.output.job_id for held in hello.held] == ["a"]
    rig.now += 10_000
    rig.do(rig.machine.tick(rig.now))
    assert rig.machine.held.get(rig.key("a")) is not None


def test_outputs_of_a_gateway_that_stays_away_are_forgotten(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    rig.do(rig.machine.disconnected(GATEWAY, rig.now))
    rig.now += 899
    rig.do(rig.machine.tick(rig.now))
    assert rig.machine.held.used
    rig.now = rig.machine.next_wakeup() or 0.0
    rig.do(rig.machine.tick(rig.now))
    assert not rig.machine.held.used


def test_quarantine_stops_work_but_not_what_is_held(rig: Rig) -> None:
    first, second = rig.grants()
    rig.finish(rig.start("a", first))
    rig.assign("b", second)
    rig.do(rig.machine.quarantine("returns NaN", rig.now))
    assert failures(rig) == [("b", 1, "REFUSED")]
    assert rig.machine.state == (stage_pb2.WORKER_STATE_QUARANTINED, "returns NaN")
    with pytest.raises(RefusedError):
        rig.machine.admit(rig.header("c", rig.grants()[-1]), rig.now)
    assert [a for a in send(rig, "a") if isinstance(a, SendOutput)]
    assert len(rig.machine.slots) == 0


def test_draining_finishes_what_runs_and_waits_for_releases(rig: Rig) -> None:
    first, second = rig.grants()
    run = rig.start("a", first)
    rig.assign("b", second)
    assert Drained() not in rig.do(rig.machine.drain(rig.now))
    assert failures(rig) == [("b", 1, "REFUSED")]
    rig.finish(run)
    assert Drained() not in rig.done
    assert Drained() in rig.do(rig.machine.release("a", 0, 1, rig.now))


def test_draining_does_not_wait_for_ever(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    rig.do(rig.machine.drain(rig.now))
    rig.now = rig.machine.next_wakeup() or 0.0
    assert rig.now == 125.0
    assert Drained() in rig.do(rig.machine.tick(rig.now))
    assert rig.machine.next_wakeup() is None or rig.machine.next_wakeup() > rig.now


def test_a_long_last_job_leaves_as_much_time_for_its_release(rig: Rig) -> None:
    run = rig.start("a")
    rig.do(rig.machine.drain(rig.now))
    rig.now += 74.0
    rig.finish(run)
    assert Drained() not in rig.done
    rig.now = rig.machine.next_wakeup() or 0.0
    assert rig.now == 199.0
    assert Drained() in rig.do(rig.machine.tick(rig.now))


def test_draining_waits_for_a_gateway_that_is_away(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    rig.do(rig.machine.disconnected(GATEWAY, rig.now))
    assert Drained() not in rig.do(rig.machine.drain(rig.now))
    rig.now += 20.0
    assert Drained() not in rig.do(rig.machine.tick(rig.now))
    hello = rig.connect(session="gateway/2")
    assert [held.output.job_id for held in hello.held] == ["a"]
    assert Drained() in rig.do(rig.machine.release("a", 0, 1, rig.now))


def test_draining_waits_no_longer_for_a_gateway_that_stays_away(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    rig.do(rig.machine.disconnected(GATEWAY, rig.now))
    rig.do(rig.machine.drain(rig.now))
    rig.now = rig.machine.next_wakeup() or 0.0
    assert rig.now == 125.0
    assert Drained() in rig.do(rig.machine.tick(rig.now))


def test_an_idle_machine_drains_at_once(rig: Rig) -> None:
    assert Drained() in rig.machine.drain(rig.now)
