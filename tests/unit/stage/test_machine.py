"""The front's behaviour, event by event."""

from __future__ import annotations

import pytest
from stagerig import GATEWAY, Rig, failures

from disagfusion.stage.actions import (
    CancelOnEngine,
    EndSession,
    EngineInfo,
    GiveSpace,
    Product,
    StartEngine,
)
from disagfusion.transport.api import RefusalReason, RefusedError
from disagfusion.transport.slots import SlotState
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2


def test_grants_come_with_the_engine_and_not_before() -> None:
    rig = Rig()
    assert rig.connect().grant_ids == []
    assert rig.machine.state[0] == stage_pb2.WORKER_STATE_LOADING
    rig.boot()
    assert len(set(rig.grants())) == 2
    assert [state.state for state in rig.told("state")] == [stage_pb2.WORKER_STATE_READY]


def test_a_stage_from_grant_to_done(rig: Rig) -> None:
    grant = rig.grants()[0]
    rig.assign("a", grant)
    assert rig.machine.activity == "starved"
    header = rig.header("a", grant)
    rig.machine.admit(header, rig.now)
    assert rig.machine.transfer("received") == "exposed"
    rig.now += 2
    rig.do(rig.machine.delivered(header, 1.5, rig.now))
    assert rig.told("received")[0].receive_seconds == 1.5
    assert rig.told("started")[0].job_id == "a"
    assert rig.machine.activity == "busy"
    assert rig.run.header == header
    rig.do(rig.machine.engine_step(rig.run.run_id, 1, 4, rig.now))
    assert rig.told("step")[0].num_inference_steps == 4
    rig.finish(rig.run.run_id)
    done = rig.told("done")[0]
    assert done.size_bytes == 100
    assert (done.record.pid, done.record.steps, done.record.outcome) == (4711, 4, "done")
    assert done.record.receive_seconds == 1.5
    assert done.record.queue_seconds == 0
    assert len(rig.grants()) == 3, "the slot is granted again"
    assert rig.machine.activity == "starved"


def test_an_input_on_its_way_while_the_engine_computes_is_hidden(rig: Rig) -> None:
    first, second = rig.grants()
    rig.start("a", first)
    rig.assign("b", second)
    rig.machine.admit(rig.header("b", second), rig.now)
    assert rig.machine.transfer("received") == "hidden"
    assert rig.machine.transfer("sent") is None


def test_the_next_input_arrives_while_the_engine_computes(rig: Rig) -> None:
    first, second = rig.grants()
    rig.start("a", first)
    rig.assign("b", second)
    rig.now += 1
    rig.deliver("b", second)
    assert rig.machine.waiting == 1
    assert rig.machine.transfer("received") is None
    assert [run.assignment.job_id for run in rig.given] == ["a", "b"], "the engine need not wait"
    assert [started.job_id for started in rig.told("started")] == ["a"]
    rig.now += 3
    rig.finish(rig.run.run_id)
    assert [started.job_id for started in rig.told("started")] == ["a", "b"]
    rig.finish(rig.run.run_id)
    assert rig.told("done")[1].record.queue_seconds == 3
    assert sorted(run.offset for run in rig.given) == [0, 4096]


def test_a_message_may_come_before_its_assignment(rig: Rig) -> None:
    grant = rig.grants()[0]
    rig.deliver("a", grant)
    assert not rig.told("received")
    rig.assign("a", grant)
    assert rig.told("received")
    assert rig.run.assignment.job_id == "a"


def test_a_message_whose_assignment_never_comes_is_forgotten(rig: Rig) -> None:
    rig.deliver("a", rig.grants()[0])
    assert rig.machine.slots.counts()[SlotState.FILLED] == 1
    rig.now = rig.machine.next_wakeup() or 0.0
    rig.do(rig.machine.tick(rig.now))
    assert rig.machine.slots.counts()[SlotState.FILLED] == 0
    assert len(rig.grants()) == 3


def test_an_input_that_never_comes_is_lost(rig: Rig) -> None:
    rig.assign("a", rig.grants()[0])
    rig.now = rig.machine.next_wakeup() or 0.0
    rig.do(rig.machine.tick(rig.now))
    assert failures(rig) == [("a", 1, "INPUT_LOST")]
    assert len(rig.grants()) == 3


def test_the_output_of_the_wrong_attempt_is_no_input(rig: Rig) -> None:
    grant = rig.grants()[0]
    rig.assign("a", grant)
    rig.deliver("a", grant, source=2)
    assert failures(rig) == [("a", 1, "INPUT_LOST")]


def test_a_dropped_message_may_come_again(rig: Rig) -> None:
    grant = rig.grants()[0]
    rig.assign("a", grant)
    header = rig.header("a", grant)
    rig.machine.admit(header, rig.now)
    rig.do(rig.machine.dropped(header, rig.now))
    rig.deliver("a", grant)
    assert rig.run.assignment.job_id == "a"


def test_a_slot_outlives_the_gateway_that_it_was_offered_to(rig: Rig) -> None:
    header = rig.header("a", rig.grants()[0])
    rig.machine.admit(header, rig.now)
    rig.do(rig.machine.disconnected(GATEWAY, rig.now))
    rig.do(rig.machine.dropped(header, rig.now))
    assert len(rig.connect("other", "other/1").grant_ids) == 2


@pytest.mark.parametrize("spoil", ["unknown", "used", "stage", "old", "twice", "no input"])
def test_an_assignment_that_cannot_be_is_refused(rig: Rig, spoil: str) -> None:
    first, second = rig.grants()
    rig.start("a", first, attempt=2)
    message = rig.assignment("b", second)
    match spoil:
        case "unknown":
            message.grant_id = "nonsense"
        case "used":
            message.grant_id = first
        case "stage":
            message.stage = pb.STAGE_DECODER
        case "old":
            message.job_id = "a"
        case "twice":
            message.job_id, message.attempt = "a", 2
        case "no input":
            message.ClearField("input")
    rig.do(rig.machine.assign(GATEWAY, message, rig.now))
    assert [kind for _, _, kind in failures(rig)] == ["REFUSED"]
    assert rig.machine.computing
    rig.finish(rig.run.run_id)
    assert [done.output.job_id for done in rig.told("done")] == ["a"]
    assert len(rig.machine.slots) == 2, "no slot is lost to the gateway"


def test_a_newer_attempt_ends_the_older_one(rig: Rig) -> None:
    first, second = rig.grants()
    run = rig.start("a", first)
    rig.assign("a", second, attempt=2)
    assert CancelOnEngine(run) in rig.done
    kind = stage_pb2.FAILURE_KIND_CANCELLED
    rig.do(rig.machine.engine_failed(run, kind, "cancelled", rig.now))
    assert failures(rig) == [("a", 1, "CANCELLED")]
    rig.deliver("a", second, attempt=2)
    rig.finish(rig.run.run_id)
    assert rig.told("done")[0].output.attempt == 2


@pytest.mark.parametrize("phase", ["waiting", "ready", "running", "blocked"])
def test_cancelling(rig: Rig, phase: str) -> None:
    first, second = rig.grants()
    rig.start("other" if phase == "ready" else "a", first)
    if phase == "ready":
        rig.assign("a", second)
        rig.deliver("a", second)
    if phase == "waiting":
        rig.finish(rig.run.run_id)
        rig.assign("b", second)
    if phase == "blocked":
        assert rig.machine.held.allocate(8192) == 0
        rig.do(rig.machine.engine_needs_space(rig.run.run_id, 64, rig.now))
        assert rig.machine.activity == "blocked"
    job = "b" if phase == "waiting" else "a"
    todo = rig.do(rig.machine.cancel(job, 1, rig.now))
    if phase != "waiting":
        run = rig.given[-1].run_id
        assert CancelOnEngine(run) in todo
        denied = [a for a in todo if isinstance(a, GiveSpace)]
        assert len(denied) == (phase == "blocked")
        assert failures(rig) == []
        kind = stage_pb2.FAILURE_KIND_CANCELLED
        rig.do(rig.machine.engine_failed(run, kind, "cancelled", rig.now))
        assert rig.machine.computing == (phase == "ready"), "what is computed goes on"
    assert failures(rig) == [(job, 1, "CANCELLED")]
    with pytest.raises(RefusedError) as refused:
        rig.machine.admit(rig.header(job, rig.grants()[-1]), rig.now)
    assert refused.value.reason is RefusalReason.STALE


def test_a_draining_worker_takes_back_what_the_engine_has_not_begun(rig: Rig) -> None:
    first, second = rig.grants()
    run = rig.start("a", first)
    rig.assign("b", second)
    rig.deliver("b", second)
    following = rig.given[-1].run_id
    assert CancelOnEngine(following) in rig.do(rig.machine.drain(rig.now))
    assert rig.machine.slots.free == 0, "the engine may read it until it has answered"
    kind = stage_pb2.FAILURE_KIND_CANCELLED
    rig.do(rig.machine.engine_failed(following, kind, "cancelled", rig.now))
    assert failures(rig) == [("b", 1, "REFUSED")]
    rig.finish(run)
    assert [done.output.job_id for done in rig.told("done")] == ["a"]


def test_a_stopped_job_that_the_engine_begins_all_the_same_is_not_announced(rig: Rig) -> None:
    first, second = rig.grants()
    run = rig.start("a", first)
    rig.assign("b", second)
    rig.deliver("b", second)
    rig.do(rig.machine.cancel("b", 1, rig.now))
    rig.finish(run)
    assert [started.job_id for started in rig.told("started")] == ["a"]
    rig.do(rig.machine.engine_lost("ended by SIGKILL", rig.now))
    assert failures(rig) == [("b", 1, "CANCELLED")]


def test_a_run_that_ends_before_it_hears_of_its_cancellation_leaves_nothing(rig: Rig) -> None:
    run = rig.start("a")
    rig.do(rig.machine.engine_needs_space(run, 100, rig.now))
    rig.do(rig.machine.cancel("a", 1, rig.now))
    rig.do(rig.machine.engine_finished(run, Product(100), rig.now))
    assert failures(rig) == [("a", 1, "CANCELLED")]
    assert rig.machine.held.used == 0


def test_an_engine_that_dies_loses_its_run_only(rig: Rig) -> None:
    first, second = rig.grants()
    rig.finish(rig.start("a", first))
    run = rig.start("b", second)
    rig.do(rig.machine.engine_needs_space(run, 100, rig.now))
    used = rig.machine.held.used
    waiting = rig.grants()[-1]
    rig.assign("c", waiting)
    rig.deliver("c", waiting)
    assert rig.given[-1].assignment.job_id == "c"
    todo = rig.do(rig.machine.engine_lost("ended by SIGKILL", rig.now))
    assert failures(rig) == [("b", 1, "ENGINE_LOST")]
    assert rig.machine.held.used < used
    assert StartEngine() in todo, "one that has worked is replaced at once"
    assert rig.machine.activity == "loading"
    rig.do(rig.machine.engine_loaded(EngineInfo(version="v1"), rig.now))
    assert [run.assignment.job_id for run in rig.given[-2:]] == ["c", "c"], "it is given again"
    assert rig.machine.held.get(rig.key("a")) is not None


def test_another_version_of_the_model_takes_over_no_job(rig: Rig) -> None:
    first, second = rig.grants()
    rig.finish(rig.start("a", first))
    rig.assign("b", second)
    rig.do(rig.machine.engine_lost("ended by SIGKILL", rig.now))
    rig.do(rig.machine.engine_loaded(EngineInfo(version="v2"), rig.now))
    assert failures(rig) == [("b", 1, "REFUSED")]
    assert rig.machine.waiting == 0
    assert rig.told("state")[-1].worker.version == "v2"
    assert rig.machine.held.get(rig.key("a")) is not None


def test_an_engine_that_ends_after_a_failure_is_not_given_work(rig: Rig) -> None:
    first, second = rig.grants()
    run = rig.start("a", first)
    rig.assign("b", second)
    rig.deliver("b", second)
    kind = stage_pb2.FAILURE_KIND_OUT_OF_MEMORY
    rig.do(rig.machine.engine_failed(run, kind, "no memory", rig.now, ends_engine=True))
    assert failures(rig) == [("a", 1, "OUT_OF_MEMORY")]
    assert not rig.machine.computing
    rig.do(rig.machine.engine_lost("exited", rig.now))
    assert failures(rig) == [("a", 1, "OUT_OF_MEMORY")]


def test_starts_that_fail_are_repeated_ever_less_often() -> None:
    rig = Rig()
    pauses = []
    for _ in range(8):
        assert StartEngine() in rig.machine.tick(rig.now)
        rig.machine.engine_load_failed("the model is damaged", rig.now)
        rig.machine.engine_lost("exited with status 3", rig.now)
        assert rig.machine.state == (stage_pb2.WORKER_STATE_LOADING, "the model is damaged")
        wakeup = rig.machine.next_wakeup()
        assert wakeup is not None
        assert StartEngine() not in rig.machine.tick(wakeup - 0.1)
        pauses.append(wakeup - rig.now)
        rig.now = wakeup
    assert pauses == [5, 10, 20, 40, 60, 60, 60, 60]


def test_two_gateways_share_the_slots_and_inherit_from_each_other(rig: Rig) -> None:
    hello = rig.connect("other", "other/1")
    assert hello.grant_ids == [], "both slots were offered to the first"
    rig.assign("a", rig.grants()[0])
    rig.do(rig.machine.disconnected(GATEWAY, rig.now))
    assert len(rig.grants("other/1")) == 1, "what the first did not use is offered to the other"
    with pytest.raises(RefusedError):
        rig.machine.admit(rig.header("b", rig.grants()[1]), rig.now)
    again = rig.connect("gateway", "gateway/2")
    assert [running.job_id for running in again.running] == ["a"]
    assert again.running[0].status == pb.STAGE_STATUS_TRANSFERRING


def test_a_gateway_hears_nothing_of_another_gateways_jobs(rig: Rig) -> None:
    rig.finish(rig.start("a"))
    assert not rig.connect("other", "other/1").held
    rig.do(rig.machine.disconnected(GATEWAY, rig.now))
    orphaned = rig.connect("third", "third/1")
    assert [held.output.job_id for held in orphaned.held] == ["a"]


def test_a_stream_that_is_replaced_does_not_keep_its_grants(rig: Rig) -> None:
    hello = rig.connect("gateway", "gateway/2")
    assert len(hello.grant_ids) == 2
    assert not set(hello.grant_ids) & set(rig.grants(GATEWAY))
    assert EndSession(GATEWAY) in rig.done
    rig.assign("a", hello.grant_ids[0])
    rig.do(rig.machine.disconnected(GATEWAY, rig.now))
    assert rig.machine.waiting == 0, "what the old stream still says is not heard"
    message = rig.assignment("a", hello.grant_ids[0])
    rig.do(rig.machine.assign("gateway/2", message, rig.now))
    assert rig.machine.waiting == 1
    assert not rig.told("failed")


def test_a_gateway_that_comes_back_is_told_everything(rig: Rig) -> None:
    first, second = rig.grants()
    rig.finish(rig.start("a", first))
    rig.start("b", second)
    rig.do(rig.machine.disconnected(GATEWAY, rig.now))
    rig.do(rig.machine.engine_step(rig.run.run_id, 2, 4, rig.now))
    assert not rig.told("step")
    hello = rig.connect("gateway", "gateway/2")
    assert [(running.job_id, running.step) for running in hello.running] == [("b", 2)]
    assert [held.output.job_id for held in hello.held] == ["a"]
    assert hello.held[0].record.compute_seconds == 1.0


def test_a_slot_that_is_being_filled_is_not_given_again(rig: Rig) -> None:
    first, _ = rig.grants()
    rig.assign("a", first)
    header = rig.header("a", first)
    rig.machine.admit(header, rig.now)
    rig.do(rig.machine.cancel("a", 1, rig.now))
    assert failures(rig) == [("a", 1, "CANCELLED")]
    assert rig.machine.slots.free == 0
    assert len(rig.grants()) == 2
    rig.do(rig.machine.delivered(header, 0.1, rig.now))
    assert len(rig.grants()) == 3


def test_a_message_too_large_or_for_another_port_is_refused(rig: Rig) -> None:
    grant = rig.grants()[0]
    with pytest.raises(RefusedError) as refused:
        rig.machine.admit(rig.header("a", grant, nbytes=4097), rig.now)
    assert refused.value.reason is RefusalReason.TOO_LARGE
    encoder = Rig(first=True).ready()
    with pytest.raises(RefusedError) as refused:
        encoder.machine.admit(rig.header("a", encoder.grants()[0]), rig.now)
    assert refused.value.reason is RefusalReason.MALFORMED


def test_the_first_stage_runs_what_it_is_assigned() -> None:
    rig = Rig(first=True).ready()
    rig.finish(rig.start("a"))
    assert rig.run.header is None
    assert rig.told("done")[0].output.stage == pb.STAGE_ENCODER


def test_the_machine_describes_its_worker(rig: Rig) -> None:
    worker = rig.machine.describe()
    assert (worker.name, worker.version, worker.engine_pid) == ("dit-0", "v1", 4711)
    assert (worker.slots, worker.state) == (2, stage_pb2.WORKER_STATE_READY)
