"""A front that several gateways share: who owns what, and who gets the slots."""

from __future__ import annotations

from stagerig import Rig

from disagfusion.stage.actions import EndSession
from disagfusion.v1 import stage_pb2

A, B, C = "a/1", "b/1", "c/1"


def shared(**settings: object) -> Rig:
    """A front whose gateways `a` and `b` know of each other."""
    rig = Rig(**settings)
    rig.boot()
    for session in (A, B):
        join(rig, session)
    return rig


def join(rig: Rig, session: str, **options: object) -> stage_pb2.WorkerHello:
    name = session.partition("/")[0]
    rig.do(rig.machine.connected(session, name, rig.now, shares=True, **options))  # type: ignore[arg-type]
    hello: stage_pb2.WorkerHello = rig.told("hello", session)[-1]
    return hello


def demand(rig: Rig, session: str, waiting: bool = True) -> None:
    rig.do(rig.machine.demand(session, waiting, rig.now))


def give(rig: Rig, session: str, job: str, grant: int = -1) -> None:
    """Have a gateway use one of its grants, the last if nothing is said."""
    message = rig.assignment(job, rig.grants(session)[grant])
    rig.do(rig.machine.assign(session, message, rig.now))


def give_back(rig: Rig, session: str) -> None:
    """Have a gateway give back what was recalled last."""
    recalled = rig.told("recall", session)[-1].grant_ids
    rig.do(rig.machine.return_grants(session, recalled, rig.now))


def test_what_an_idle_gateway_does_not_use_goes_to_one_that_has_none() -> None:
    rig = shared()
    assert (len(rig.grants(A)), len(rig.grants(B))) == (2, 0), "nobody else was there"
    demand(rig, B)
    (recall,) = rig.told("recall", A)
    assert list(recall.grant_ids) == rig.grants(A)[:1]
    assert not rig.grants(B), "it may be in use"
    give_back(rig, A)
    assert len(rig.grants(B)) == 1
    give(rig, B, "job")
    assert len(rig.told("recall", A)) == 2, "its jobs can use the other slot, too"
    give_back(rig, A)
    assert len(rig.grants(B)) == 2


def test_a_grant_that_was_recalled_may_still_be_used() -> None:
    rig = shared()
    demand(rig, B)
    (recall,) = rig.told("recall", A)
    message = rig.assignment("job", recall.grant_ids[0])
    rig.do(rig.machine.assign(A, message, rig.now))
    assert not rig.told("failed", A)
    rig.do(rig.machine.return_grants(A, recall.grant_ids, rig.now))
    assert not rig.grants(B), "what is in use cannot be given back"
    assert len(rig.told("recall", A)) == 2


def test_of_two_that_have_use_for_slots_each_keeps_one() -> None:
    rig = shared()
    demand(rig, A)
    demand(rig, B)
    assert len(rig.told("recall", A)) == 1
    give_back(rig, A)
    give(rig, A, "first")
    give(rig, B, "second")
    assert (len(rig.grants(A)), len(rig.grants(B))) == (2, 1)
    assert not rig.told("recall", B)


def test_slots_that_become_free_go_to_whoever_has_the_fewest() -> None:
    rig = shared(slots=1)
    demand(rig, A)
    demand(rig, B)
    for turn, session in enumerate((A, B, A, B)):
        job = f"job-{turn}"
        give(rig, session, job)
        rig.deliver(job, rig.grants(session)[-1])
        rig.finish(rig.run.run_id)
    assert (len(rig.grants(A)), len(rig.grants(B))) == (3, 2)


def test_one_that_has_no_use_for_grants_any_more_is_served_last() -> None:
    rig = shared(slots=1)
    demand(rig, B)
    give_back(rig, A)
    demand(rig, B, False)
    join(rig, C)
    demand(rig, C)
    give_back(rig, B)
    assert len(rig.grants(C)) == 1


def test_a_gateway_that_shares_leaves_what_is_anothers() -> None:
    rig = shared()
    give(rig, A, "job")
    rig.do(rig.machine.disconnected(A, rig.now))
    assert not join(rig, C).running
    assert [running.job_id for running in join(rig, A).running] == ["job"]


def test_what_a_dead_gateway_had_is_handed_over() -> None:
    rig = shared()
    give(rig, A, "done")
    rig.deliver("done", rig.grants(A)[-1])
    rig.finish(rig.run.run_id)
    give(rig, A, "running", 0)
    rig.do(rig.machine.take_over(B, ["a", "unknown"], rig.now))
    (handed_over,) = rig.told("handed_over", B)
    assert [held.output.job_id for held in handed_over.held] == ["done"]
    assert [running.job_id for running in handed_over.running] == ["running"]
    assert EndSession(A) in rig.done, "it is stopped, and its stream stands"
    assert "a" in rig.machine.gateways.replaced
    before = len(rig.told("received", A))
    rig.deliver("running", rig.grants(A)[0])
    rig.finish(rig.run.run_id)
    assert (len(rig.told("received", A)), len(rig.told("received", B))) == (before, 1)
    assert [done.output.job_id for done in rig.told("done", B)] == ["running"]


def test_one_that_was_replaced_is_not_heard() -> None:
    rig = shared()
    rig.do(rig.machine.take_over(B, ["a"], rig.now))
    grants = rig.grants(B)
    message = rig.assignment("late", rig.grants(A)[0])
    assert rig.machine.assign(A, message, rig.now) == []
    assert rig.machine.take_over(A, ["b"], rig.now) == []
    assert rig.machine.return_grants(A, grants, rig.now) == []
    assert "b" not in rig.machine.gateways.replaced
    assert len(grants) == 2, "its slots are for the others"


def test_a_transfer_that_a_dead_gateway_ordered_is_told_to_its_successor() -> None:
    rig = shared()
    give(rig, A, "job")
    rig.deliver("job", rig.grants(A)[-1])
    rig.finish(rig.run.run_id)
    order = stage_pb2.SendOutput(attempt=1, grant_id="there")
    order.output.job_id, order.output.attempt, order.output.stage = "job", 1, rig.stage
    rig.do(rig.machine.send_output(A, order, rig.now))
    rig.do(rig.machine.take_over(B, ["a"], rig.now))
    rig.do(rig.machine.sent(1, 0.5, "tcp", rig.now))
    assert [sent.output.job_id for sent in rig.told("sent", B)] == ["job"]


def test_a_greeting_may_take_over() -> None:
    rig = shared()
    give(rig, A, "job")
    rig.do(rig.machine.disconnected(A, rig.now))
    hello = join(rig, C, takes_over=["a"])
    assert [running.job_id for running in hello.running] == ["job"]
    assert "a" in rig.machine.gateways.replaced


def test_slots_that_a_greeting_frees_are_told_to_those_who_get_them() -> None:
    rig = shared()
    demand(rig, B)
    hello = join(rig, C, takes_over=["a"])
    assert len(rig.grants(B)) == 2, "C has no use for any"
    assert not hello.grant_ids
    assert rig.machine.slots.free == 0


def test_a_gateway_alone_takes_what_nobody_connected_owns() -> None:
    rig = shared()
    give(rig, A, "job")
    rig.do(rig.machine.disconnected(A, rig.now))
    hello = rig.connect("restarted", "restarted/1")
    assert [running.job_id for running in hello.running] == ["job"]
    assert "a" not in rig.machine.gateways.replaced
