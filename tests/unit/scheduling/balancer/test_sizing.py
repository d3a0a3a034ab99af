from __future__ import annotations

from balancerkit.desk import ONE, D, Desk, E, T

from disagfusion.scheduling.behavior import Behavior, Direction
from disagfusion.scheduling.decision import Move, Reason
from disagfusion.scheduling.observation import Fresh, Missing, Replicas, StageLoad

AT_ONCE = Behavior(Direction(0.0, ()), Direction(0.0, ()))


def elastic(**settings: object) -> Desk:
    """Return a desk whose balancer sizes by the demand; all replicas report."""
    desk = Desk(sizing="demand", headroom=0.0, **{"behavior": AT_ONCE, **settings})
    desk.loads = {stage: StageLoad(busy=Fresh(0.1, 0.0), reporting=8) for stage in desk.loads}
    return desk


def arrive(desk: Desk, per_second: float, seconds: float = 200.0) -> None:
    """Let jobs come for a while, unfinished ones be as few as ever."""
    desk.decide()
    for _ in range(int(seconds / 10)):
        desk.arrived = Fresh({ONE: round(per_second * 10)}, desk.now)
        desk.jobs = Fresh((), desk.now)
        desk.carry_out(desk.decide())


def test_as_many_as_the_jobs_that_come_need() -> None:
    desk = elastic()
    # 0.3 jobs/s of 1, 10 and 2 s: 0.3, 3 and 0.6 replicas.
    arrive(desk, 0.3)
    assert (desk.replicas[E].ready, desk.replicas[T].ready, desk.replicas[D].ready) == (1, 3, 1)


def test_what_waits_is_worked_off_in_time() -> None:
    desk = elastic(drain_seconds=100.0)
    desk.replicas = {E: Replicas(1), T: Replicas(1), D: Replicas(1)}
    desk.wait_for(1, 40)
    decision = desk.decide()
    # 40 jobs of ten seconds in a hundred.
    assert decision.reason is Reason.SCALE_UP
    assert decision.moves == (Move(None, T, 3),)
    assert "0.4 jobs/s" in decision.message


def test_without_jobs_the_minimum_is_left() -> None:
    desk = elastic()
    desk.carry_out(desk.decide())
    assert {place: count.ready for place, count in desk.replicas.items()} == {E: 1, T: 1, D: 1}


def test_the_way_down_is_slow_by_default() -> None:
    desk = elastic(behavior=Behavior())
    for _ in range(3):
        decision = desk.decide()
        assert decision.moves == ()
    assert decision.reason is Reason.NO_DEMAND or decision.reason is Reason.STABILIZING


def test_one_replica_less_would_be_too_busy() -> None:
    """ai-dynamo/dynamo#9294: two, one, two, one, since nobody asked what N − 1 would mean."""
    desk = elastic()
    desk.loads["dit"] = StageLoad(busy=Fresh(0.9, 0.0), reporting=5)
    decision = desk.decide()
    assert all(move.source != T for move in decision.moves)
    desk.carry_out(decision)
    assert desk.decide().reason is Reason.CONSOLIDATION_REFUSED


def test_no_step_down_while_a_replica_does_not_report() -> None:
    desk = elastic()
    desk.loads["dit"] = StageLoad(busy=Missing("one of five is silent"), reporting=4)
    assert all(move.source != T for move in desk.decide().moves)


def test_a_pool_that_has_failed_leaves_what_there_is() -> None:
    desk = elastic()
    desk.accelerators = 0
    decision = desk.decide()
    assert decision.moves == ()
