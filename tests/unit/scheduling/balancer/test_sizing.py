from __future__ import annotations

from dataclasses import replace

from balancerkit.desk import ONE, D, Desk, E, T

from disagfusion.scheduling.balancer.forecast import History
from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.behavior import Behavior, Direction
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.document import validate
from disagfusion.scheduling.observation import (
    Fresh,
    JobGroup,
    Missing,
    Observation,
    Replicas,
    StageLoad,
)
from disagfusion.scheduling.predictors import ProfilePredictor
from disagfusion.scheduling.profile import Profile

AT_ONCE = Behavior(Direction(0.0, ()), Direction(0.0, ()))


def elastic(**settings: object) -> Desk:
    """Return a desk whose balancer sizes by the demand; all replicas report, and no jobs came."""
    desk = Desk(sizing="demand", headroom=0.0, **{"behavior": AT_ONCE, **settings})
    desk.loads = {stage: StageLoad(busy=Fresh(0.1, 0.0), reporting=8) for stage in desk.loads}
    desk.state = replace(desk.state, history=History(since=-200.0))
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
    for reporting in (4, 5):
        desk = elastic()
        desk.loads["dit"] = StageLoad(busy=Missing("one is silent"), reporting=reporting)
        desk.wait_for(0, 1)
        assert all(move.source != T for move in desk.decide().moves)


def test_a_fleet_does_not_shrink_before_arrivals_were_counted_for_long() -> None:
    desk = elastic()
    desk.state = desk.balancer.initial()
    moves = []
    for _ in range(18):
        decision = desk.decide()
        moves += decision.moves
        assert "how many come is not known" in decision.message
    assert moves == []
    desk.carry_out(desk.decide())
    assert {place: count.ready for place, count in desk.replicas.items()} == {E: 1, T: 1, D: 1}


def test_missing_arrivals_are_no_zero() -> None:
    desk = elastic()
    # 0.3 jobs/s, and one that waits, need four DiTs; there are few jobs at any moment.
    for _ in range(20):
        desk.arrived = Fresh({ONE: 3}, desk.now)
        desk.wait_for(0, 1)
        desk.carry_out(desk.decide())
    before = dict(desk.replicas)
    desk.arrived = Missing("no such series")
    for _ in range(100):
        desk.wait_for(0, 1)
        decision = desk.decide()
        assert decision.moves == ()
    assert desk.replicas == before
    assert before[T].ready == 4


def test_without_arrivals_a_fleet_grows_by_what_waits() -> None:
    desk = elastic(drain_seconds=100.0)
    desk.replicas = {E: Replicas(1), T: Replicas(1), D: Replicas(2)}
    desk.arrived = Missing("no such series")
    desk.wait_for(1, 40)
    decision = desk.decide()
    assert (decision.reason, decision.moves) == (Reason.SCALE_UP, (Move(None, T, 3),))


def test_who_may_not_move_says_so() -> None:
    # The plan has them on the cheaper pool; no accelerator is free, and minima hold.
    fleet = Dear(4, 4, min=2)
    decision = fleet.decide()
    assert (decision.reason, decision.moves) == (Reason.AT_LIMIT, ())


def test_replicas_start_on_the_cheaper_pool_before_the_others_stop() -> None:
    fleet = Dear(16, 4, min=2)
    first = fleet.decide()
    dear, cheap = (
        [Place(stage, pool) for stage in ("encoder", "dit")] for pool in ("dear", "cheap")
    )
    assert set(first.moves) == {Move(None, place, 2) for place in cheap}
    fleet.counts = {place: Replicas(starting=2) for place in cheap} | {
        place: Replicas(2) for place in dear
    }
    assert fleet.decide().moves == ()
    fleet.counts = {place: Replicas(2) for place in (*cheap, *dear)}
    assert set(fleet.decide().moves) == {Move(place, None, 2) for place in dear}


class Dear:
    """Two stages of two replicas on a dear pool; a cheap one beside it."""

    def __init__(self, budget: int, accelerators: int, **stage: int) -> None:
        pools = {"dear": 2, "cheap": 1}
        fields = {
            "pools": {
                pool: {"accelerators": accelerators, "cost_per_hour": cost}
                for pool, cost in pools.items()
            },
            "stages": {
                name: {**stage, "pools": {pool: {"seconds": seconds} for pool in pools}}
                for name, seconds in (("encoder", 2), ("dit", 5))
            },
        }
        self.profile = validate(Profile, fields, name="p")
        self.balancer = Hybrid(
            self.profile,
            ProfilePredictor(self.profile),
            lambda place: 60.0,
            BalancerSettings(sizing="demand", behavior=AT_ONCE),
            budget=budget,
        )
        self.state = replace(self.balancer.initial(), history=History(since=-200.0))
        self.counts = {Place(stage, "dear"): Replicas(2) for stage in self.profile.stages}
        self.now = 0.0

    def decide(self) -> Decision:
        self.now += 10.0
        replicas = {
            stage: {
                pool: self.counts.get(Place(stage, pool), Replicas()) for pool in ("dear", "cheap")
            }
            for stage in self.profile.stages
        }
        observation = Observation(
            replicas,
            Fresh((JobGroup(0, ONE, 1, 1.0),), self.now),
            Fresh({ONE: 2}, self.now),
            {stage: StageLoad(busy=Fresh(0.1, self.now), reporting=2) for stage in replicas},
            {name: pool.accelerators for name, pool in self.profile.pools.items()},
        )
        self.state, decision = self.balancer.decide(self.state, observation, self.now)
        return decision


def test_a_pool_that_has_failed_leaves_what_there_is() -> None:
    desk = elastic()
    desk.accelerators = 0
    decision = desk.decide()
    assert decision.moves == ()
