"""A worker that takes another stage in place."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stagerig import Rig, failures

from disagfusion.stage.actions import EndSession, EngineInfo, GiveSpace, StartEngine, TakeStage
from disagfusion.stage.machine_settings import Role
from disagfusion.transport.api import RefusalReason, RefusedError
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2

DECODER = Role(pb.STAGE_DECODER, "decoder")
DIT = Role(pb.STAGE_DIT, "dit")
GATEWAY = "gateway/1"


def load(rig: Rig) -> None:
    rig.do(rig.machine.engine_loaded(EngineInfo("{}", "v1", "cpu", 1, 1), rig.now))


def state(rig: Rig) -> str:
    return stage_pb2.WorkerState.Name(rig.machine.state[0]).removeprefix("WORKER_STATE_")


def test_what_it_made_before_keeps_it_from_nothing_for_ever(rig: Rig) -> None:
    rig.finish(rig.start("a"), nbytes=8192)
    rig.machine.change(DECODER, rig.now)
    rig.machine.engine_lost("it made way", rig.now)
    rig.machine.disconnected(GATEWAY, rig.now)
    rig.connect(session="gateway/2")
    load(rig)
    rig.stage = pb.STAGE_DECODER
    grant = rig.grants("gateway/2")[-1]
    message = rig.assignment("b", grant)
    rig.do(rig.machine.assign("gateway/2", message, rig.now))
    header = replace(rig.header("b", grant), port="decoder")
    rig.machine.admit(header, rig.now)
    rig.do(rig.machine.delivered(header, 0.5, rig.now))
    run = rig.run.run_id
    rig.do(rig.machine.engine_needs_space(run, 64, rig.now))
    assert rig.machine.activity == "blocked"
    rig.now = rig.machine.next_wakeup() or 0.0
    assert rig.now == 1000.0
    assert GiveSpace(run, 0, nbytes=64) in rig.do(rig.machine.tick(rig.now))


def test_an_idle_worker_changes_at_once_and_says_hello_anew(rig: Rig) -> None:
    todo = rig.do(rig.machine.change(DECODER, rig.now))
    assert [a for a in todo if isinstance(a, TakeStage | EndSession)] == [
        TakeStage(pb.STAGE_DECODER),
        EndSession(GATEWAY),
    ]
    assert StartEngine() not in todo
    assert state(rig) == "LOADING"
    # The old engine makes way, the new one starts without delay.
    assert StartEngine() in rig.do(rig.machine.engine_lost("it made way", rig.now))
    rig.machine.disconnected(GATEWAY, rig.now)
    hello = rig.connect(session="gateway/2")
    assert list(hello.worker.stages) == [pb.STAGE_DECODER]
    assert not hello.grant_ids
    load(rig)
    assert state(rig) == "READY"
    assert len(rig.grants("gateway/2")) == 2


def test_what_is_computed_is_finished_and_what_waits_is_handed_back(rig: Rig) -> None:
    first, second = rig.grants()
    run = rig.start("a", first)
    rig.assign("b", second)
    rig.do(rig.machine.change(DECODER, rig.now))
    assert state(rig) == "DRAINING"
    assert rig.machine.describe().changes_to == pb.STAGE_DECODER
    assert failures(rig) == [("b", 1, "REFUSED")]
    with pytest.raises(RefusedError) as refused:
        rig.machine.admit(rig.header("c", "g9"), rig.now)
    assert refused.value.reason is RefusalReason.CLOSING
    rig.finish(run)
    assert rig.told("done")[0].output.job_id == "a"
    assert TakeStage(pb.STAGE_DECODER) in rig.done
    assert rig.machine.describe().changes_to == pb.STAGE_UNSPECIFIED


def test_what_it_holds_is_still_there_afterwards(rig: Rig) -> None:
    rig.finish(rig.start("a", rig.grants()[0]))
    rig.do(rig.machine.change(DECODER, rig.now))
    rig.do(rig.machine.engine_lost("it made way", rig.now))
    rig.machine.disconnected(GATEWAY, rig.now)
    hello = rig.connect(session="gateway/2")
    (held,) = hello.held
    assert (held.output.job_id, held.output.stage) == ("a", pb.STAGE_DIT)
    assert rig.machine.held.get(rig.key("a")) is not None


def test_a_change_that_has_not_begun_is_taken_back(rig: Rig) -> None:
    run = rig.start("a", rig.grants()[0])
    rig.do(rig.machine.change(DECODER, rig.now))
    rig.do(rig.machine.change(DIT, rig.now))
    assert state(rig) == "READY"
    rig.finish(run)
    assert not [action for action in rig.done if isinstance(action, TakeStage)]
    assert rig.machine.describe().stages == [pb.STAGE_DIT]


def test_asking_again_changes_nothing(rig: Rig) -> None:
    rig.start("a", rig.grants()[0])
    rig.do(rig.machine.change(DECODER, rig.now))
    assert rig.do(rig.machine.change(DECODER, rig.now)) == []
    assert state(rig) == "DRAINING"


def test_what_the_old_engine_still_says_is_not_the_new_ones(rig: Rig) -> None:
    # It loads when it is told to make way, and says so before it ends.
    rig.machine.engine_lost("crash", rig.now)
    rig.now += 10
    rig.do(rig.machine.tick(rig.now))
    rig.do(rig.machine.change(DECODER, rig.now))
    load(rig)
    assert state(rig) == "LOADING"
    rig.do(rig.machine.engine_load_failed("no such file", rig.now))
    assert StartEngine() in rig.do(rig.machine.engine_lost("it made way", rig.now))
    load(rig)
    assert state(rig) == "READY"


def test_a_worker_whose_engine_dies_while_it_changes(rig: Rig) -> None:
    rig.start("a", rig.grants()[0])
    rig.do(rig.machine.change(DECODER, rig.now))
    todo = rig.do(rig.machine.engine_lost("killed", rig.now))
    assert failures(rig) == [("a", 1, "ENGINE_LOST")]
    assert TakeStage(pb.STAGE_DECODER) in todo
    assert StartEngine() in todo
    assert todo.index(TakeStage(pb.STAGE_DECODER)) < todo.index(StartEngine())


def test_assignments_of_the_new_stage_only(rig: Rig) -> None:
    rig.do(rig.machine.change(DECODER, rig.now))
    rig.do(rig.machine.engine_lost("it made way", rig.now))
    rig.machine.disconnected(GATEWAY, rig.now)
    rig.connect()
    load(rig)
    grants = rig.grants()[-2:]
    rig.assign("a", grants[0])
    assert failures(rig) == [("a", 1, "REFUSED")]
    rig.stage = pb.STAGE_DECODER
    later = rig.grants()[-1]
    message = rig.assignment("b", later)
    message.input.stage = pb.STAGE_DIT
    rig.do(rig.machine.assign(GATEWAY, message, rig.now))
    assert rig.machine.waiting == 1
