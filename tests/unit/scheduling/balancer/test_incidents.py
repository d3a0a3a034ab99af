"""What autoscalers of other projects did wrong: each test has the name of a report.

The repositories are ai-dynamo/dynamo, kedacore/keda, llm-d/llm-d-autoscaling, vllm-project/aibrix,
gocrane/crane, kubernetes/kubernetes and the reference implementation of DisagFusion.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from balancerkit.desk import ONE, D, Desk, E, T, make_profile

from disagfusion.scheduling.balancer.forecast import History
from disagfusion.scheduling.behavior import Behavior, Direction
from disagfusion.scheduling.decision import Move, Reason
from disagfusion.scheduling.observation import (
    Fresh,
    Invalid,
    JobGroup,
    Missing,
    Replicas,
    StageLoad,
)


def sized(**settings: Any) -> Desk:
    """Return a desk whose balancer sizes by the demand; no jobs have come for long."""
    at_once = Behavior(Direction(0.0, ()), Direction(0.0, ()))
    desk = Desk(sizing="demand", headroom=0.0, behavior=at_once, **settings)
    desk.loads = dict.fromkeys(desk.loads, StageLoad(busy=Fresh(0.1, 0.0), reporting=8))
    desk.state = replace(desk.state, history=History(since=-200.0))
    return desk


def test_dynamo_6985_7067_zero_traffic_is_zero_and_not_nan() -> None:
    """0/0 gave NaN for the load, and nothing was ever scaled down."""
    desk = sized()
    nothing = StageLoad(busy=Invalid("NaN"), seconds=Missing("no job finished"), reporting=5)
    desk.loads = dict.fromkeys(desk.loads, nothing)
    desk.carry_out(desk.decide())
    assert {place: count.ready for place, count in desk.replicas.items()} == {E: 1, T: 1, D: 1}


def test_dynamo_6985_nan_is_not_zero_where_there_is_work() -> None:
    desk = sized()
    desk.loads = dict.fromkeys(desk.loads, StageLoad(busy=Invalid("NaN"), reporting=5))
    desk.wait_for(0, 1)
    decision = desk.decide()
    assert (decision.reason, decision.moves) == (Reason.CONSOLIDATION_REFUSED, ())


def test_dynamo_14575_keda_8036_3065_an_outage_ends_nowhere_below_the_minimum() -> None:
    """no answer was taken for zero."""
    desk = Desk(make_profile(dit={"min": 4}), zero_after=60.0)
    desk.lose_signals()
    for _ in range(2000):
        decision = desk.decide()
        assert decision.moves == ()
        assert decision.reason is Reason.METRICS_MISSING


def test_dynamo_14575_a_minimum_is_restored_without_any_metrics() -> None:
    """The other half of the same: what is lost meanwhile comes back."""
    desk = Desk(make_profile(dit={"min": 4}))
    desk.lose_signals()
    desk.set(T, ready=2)
    decision = desk.decide()
    assert decision.moves == (Move(None, T, 2),)


def test_dynamo_12428_a_rebalance_counts_what_terminates() -> None:
    """a rebalance exceeded the budget while old replicas ended."""
    desk = Desk()
    desk.set(T, ready=3, draining=2)
    desk.wait_for(1, 60)
    # Eight accelerators are held although only six replicas work.
    assert not [move for move in desk.decide().moves if move.source is None]


def test_dynamo_12428_14251_a_change_that_never_ends_is_given_up() -> None:
    """ "in progress" for ever, for a pod without a node."""
    desk = Desk(change_timeout=60.0)
    desk.set(T, ready=3)
    desk.wait_for(1, 60)
    decision = desk.decide()
    assert decision.reason is Reason.SCALE_UP
    count = sum(move.count for move in decision.moves)
    desk.set(T, starting=count)
    reasons = []
    while (decision := desk.decide()).reason is Reason.CHANGE_UNDER_WAY:
        reasons.append(decision.reason)
    assert len(reasons) == 6
    assert decision.reason is Reason.PENDING_EXPIRED
    assert decision.moves == (Move(T, None, count, cancel=True),)
    desk.carry_out(decision)
    # The pool counts as full; what is there is still balanced.
    desk.wait_for(2, 60)
    after = desk.decide()
    assert [(move.source, move.target) for move in after.moves] == [(T, D)]


def test_dynamo_4420_a_change_by_hand_is_taken_as_it_is() -> None:
    """the managed object was edited, and fought over."""
    desk = Desk()
    desk.wait_for(1, 30)
    desk.set(D, ready=1)
    desk.set(T, ready=6)
    assert desk.decide().moves == ()
    desk.set(D, ready=4)
    desk.set(T, ready=3)
    decision = desk.decide()
    assert [(move.source, move.target) for move in decision.moves] == [(D, T)]


def test_llm_d_autoscaling_1325_back_pressure_is_not_load() -> None:
    """The stage that was blocked counted as busy, and kept or got the replicas."""
    desk = sized()
    # The DiTs stand still nine tenths of the time, since the decoders do not keep up.
    desk.loads["dit"] = StageLoad(busy=Fresh(0.1, 0.0), blocked=Fresh(0.9, 0.0), reporting=5)
    desk.loads["decoder"] = StageLoad(busy=Fresh(1.0, 0.0), reporting=2)
    desk.arrived = Fresh({ONE: 1}, 0.0)
    moves = desk.decide().moves
    assert [move.source for move in moves] == [T]
    # The same share of the time computing is a reason to keep them.
    busy = sized()
    busy.loads["dit"] = StageLoad(busy=Fresh(0.9, 0.0), blocked=Fresh(0.1, 0.0), reporting=5)
    busy.arrived = Fresh({ONE: 1}, 0.0)
    assert all(move.source != T for move in busy.decide().moves)


def test_llm_d_autoscaling_1325_the_stage_that_blocks_gets_the_replicas() -> None:
    desk = Desk()
    desk.wait_for(2, 60)
    assert {move.target for move in desk.decide().moves} == {D}


def test_aibrix_1032_one_stage_without_metrics_does_not_stop_the_others() -> None:
    """One pod without metrics stopped all scaling."""
    desk = sized()
    desk.loads["decoder"] = StageLoad(busy=Missing("no such series"))
    desk.wait_for(0, 1)
    moves = desk.decide().moves
    # What nobody knows about stays; what is known to be idle leaves.
    assert [move.source for move in moves] == [T]


def test_aibrix_1661_another_autoscaler_is_neither_fought_nor_outbid() -> None:
    """Two on one target. That there are two only the owner of the target can see; but who takes
    the replicas that there are as they are asks for no more than before when they are undone."""
    desk = Desk()
    asked = []
    for _ in range(60):
        # Whatever was decided, the other one has set it back by now.
        desk.replicas = {E: Replicas(1), T: Replicas(5), D: Replicas(2)}
        desk.wait_for(2, 60)
        decision = desk.decide()
        asked.append(sum(move.count for move in decision.moves))
        assert {(move.source, move.target) for move in decision.moves} <= {(T, D)}
        assert len(desk.state.pending) <= 1
    assert max(asked) == asked[0] > 0


def test_dynamo_9294_two_one_two_one() -> None:
    """One replica less would be too busy, so the next step added it again, and so on."""
    desk = sized()
    desk.replicas = {E: Replicas(1), T: Replicas(2), D: Replicas(1)}
    counts = []
    for _ in range(60):
        # 0.099 jobs/s of ten seconds: a share of 0.99 of one DiT, and half of two.
        desk.arrived = Fresh({ONE: 1}, desk.now)
        share = min(1.0, 0.99 / desk.replicas[T].ready)
        desk.loads["dit"] = StageLoad(busy=Fresh(share, desk.now), reporting=2)
        desk.jobs = Fresh((), desk.now)
        desk.carry_out(desk.decide())
        counts.append(desk.replicas[T].ready)
    assert set(counts) == {2}


def test_dynamo_13559_who_still_computes_is_never_taken_away() -> None:
    """A scale-down killed work in flight. A stop is a drain: nobody is cancelled who was ready, and
    those that drain count until they have gone; `test_elastic` does it with jobs."""
    desk = sized()
    decision = desk.decide()
    assert decision.reason is Reason.SCALE_DOWN
    assert not any(move.cancel for move in decision.moves)
    # Work comes back while four drain: they are there until they have gone.
    busy = sized(drain_seconds=60.0)
    busy.replicas = {E: Replicas(1), T: Replicas(1, draining=4), D: Replicas(1)}
    running = JobGroup(1, ONE, 4, 60.0, "a", 50.0, draining=True)
    busy.jobs = Fresh((running, *[JobGroup(0, ONE, 1, 1.0)] * 60), 0.0)
    assert sum(move.count for move in busy.decide().moves) == 1


def test_reference_a_busy_victim_is_not_reclaimed() -> None:
    """Reference implementation: a busy victim was reclaimed, and its requests were lost."""
    desk = Desk(change_timeout=60.0)
    desk.wait_for(2, 60)
    decision = desk.decide()
    count = sum(move.count for move in decision.moves)
    assert {(move.source, move.target) for move in decision.moves} == {(T, D)}
    # It computes for far longer than anyone expected.
    desk.set(T, ready=5 - count, draining=count)
    running = JobGroup(1, ONE, count, 60.0, "a", 50.0, draining=True)
    reasons = []
    for _ in range(20):
        waiting = tuple(JobGroup(2, ONE, 1, 0.0) for _ in range(60))
        desk.jobs = Fresh((running, *waiting), desk.now)
        decision = desk.decide()
        reasons.append(decision.reason)
        if decision.reason is Reason.PENDING_EXPIRED:
            break
    assert reasons[-1] is Reason.PENDING_EXPIRED
    # The change counts as failed, but who drains is left to finish.
    assert decision.moves == ()


def test_crane_567_a_tolerance_does_not_swallow_what_matters() -> None:
    """24 replicas were wanted, 22 were kept: within ten percent."""
    profile = make_profile()
    profile = profile.model_copy(
        update={"pools": {"a": profile.pools["a"].model_copy(update={"accelerators": 32})}}
    )
    desk = Desk(profile, budget=32)
    desk.accelerators = 32
    desk.replicas = {E: Replicas(4), T: Replicas(22), D: Replicas(6)}
    for _ in range(30):
        desk.arrived = Fresh({ONE: 24}, desk.now)
        desk.wait_for(1, 300, age=60.0)
        decision = desk.decide()
        desk.carry_out(decision)
    assert desk.replicas[T].ready >= 24


def test_kubernetes_59975_replicas_that_warm_up_are_not_load() -> None:
    """long warm-up was counted, and more and more were started."""
    desk = Desk(change_timeout=600.0)
    desk.set(T, ready=3)
    desk.wait_for(1, 60)
    count = sum(move.count for move in desk.decide().moves)
    desk.set(T, starting=count)
    assert all(desk.decide().moves == () for _ in range(50))


def test_reference_a_drained_role_waits_for_no_other_queue() -> None:
    """Reference implementation: it waited until *all* queues were empty, and for ever."""
    desk = Desk()
    desk.wait_for(2, 60)
    count = sum(move.count for move in desk.decide().moves)
    desk.set(T, ready=5 - count, draining=count)
    desk.wait_for(2, 300)
    assert desk.decide().reason is Reason.CHANGE_UNDER_WAY
    # They have drained; there is more work than ever for all stages, their own one included.
    desk.set(T, draining=0)
    desk.set(D, ready=2 + count)
    groups = [JobGroup(stage, ONE, 1, 0.0) for stage in (0, 1, 2) for _ in range(100)]
    desk.jobs = Fresh(tuple(groups), desk.now)
    assert desk.decide().reason is not Reason.CHANGE_UNDER_WAY


def test_reference_a_drain_that_waits_for_the_next_stage_finds_someone_there() -> None:
    """What drains holds outputs until the next stage takes them: that stage must not be empty."""
    desk = sized(fallback="ratio", fallback_after=0.0, fallback_ratio={E: 6, T: 0, D: 0})
    desk.replicas = {E: Replicas(1), T: Replicas(2), D: Replicas(2)}
    desk.lose_signals()
    for _ in range(5):
        decision = desk.decide()
        desk.carry_out(decision)
        assert desk.replicas[T].ready >= 1
        assert desk.replicas[D].ready >= 1
