"""What autoscalers of other projects did wrong: each test has the name of a report."""

from __future__ import annotations

from balancerkit.desk import ONE, D, Desk, E, T, make_profile

from disagfusion.scheduling.decision import Move, Reason
from disagfusion.scheduling.observation import Fresh, Missing, Replicas, StageLoad


def test_zero_traffic_is_zero_and_not_nan() -> None:
    """ai-dynamo/dynamo#6985, #7067: 0/0 gave NaN, and nothing was ever scaled down."""
    desk = Desk(zero_after=60.0)
    desk.loads = {stage: StageLoad(seconds=Missing("no job finished")) for stage in desk.loads}
    reasons = [desk.decide().reason for _ in range(8)]
    assert Reason.SCALE_DOWN in reasons
    assert reasons[0] is Reason.NO_DEMAND


def test_an_outage_of_the_metrics_ends_nowhere_below_the_minimum() -> None:
    """ai-dynamo/dynamo#14575, kedacore/keda#8036, #3065: no answer was taken for zero."""
    desk = Desk(make_profile(dit={"min": 4}), zero_after=60.0)
    desk.lose_signals()
    for _ in range(2000):
        decision = desk.decide()
        assert decision.moves == ()
        assert decision.reason is Reason.METRICS_MISSING


def test_a_minimum_is_restored_without_any_metrics() -> None:
    """The other half of the same: what is lost meanwhile comes back."""
    desk = Desk(make_profile(dit={"min": 4}))
    desk.lose_signals()
    desk.set(T, ready=2)
    decision = desk.decide()
    assert decision.moves == (Move(None, T, 2),)


def test_a_rebalance_counts_what_terminates() -> None:
    """ai-dynamo/dynamo#12428: a rebalance exceeded the budget while old replicas ended."""
    desk = Desk()
    desk.set(T, ready=3, draining=2)
    desk.wait_for(1, 60)
    # Eight accelerators are held although only six replicas work.
    assert not [move for move in desk.decide().moves if move.source is None]


def test_a_change_that_never_ends_is_given_up() -> None:
    """ai-dynamo/dynamo#12428, #14251: "in progress" for ever, for a pod without a node."""
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


def test_a_change_by_hand_is_taken_as_it_is() -> None:
    """ai-dynamo/dynamo#4420: the managed object was edited, and fought over."""
    desk = Desk()
    desk.wait_for(1, 30)
    desk.set(D, ready=1)
    desk.set(T, ready=6)
    assert desk.decide().moves == ()
    desk.set(D, ready=4)
    desk.set(T, ready=3)
    decision = desk.decide()
    assert [(move.source, move.target) for move in decision.moves] == [(D, T)]


def test_back_pressure_is_not_taken_for_load() -> None:
    """llm-d/llm-d-autoscaling#1325: the stage that was blocked got the replicas."""
    desk = Desk()
    desk.loads["dit"] = StageLoad(busy=Fresh(0.1, 0.0), blocked=Fresh(0.9, 0.0), reporting=5)
    desk.loads["decoder"] = StageLoad(busy=Fresh(1.0, 0.0), reporting=2)
    desk.wait_for(2, 60)
    decision = desk.decide()
    assert {move.target for move in decision.moves} == {D}


def test_one_stage_without_metrics_does_not_stop_the_others() -> None:
    """vllm-project/aibrix#1032: one pod without metrics stopped all scaling."""
    desk = Desk()
    desk.loads["encoder"] = StageLoad(busy=Missing("no such series"))
    desk.wait_for(2, 60)
    assert desk.decide().moves


def test_a_tolerance_does_not_swallow_what_matters() -> None:
    """gocrane/crane#567: 24 replicas were wanted, 22 were kept: within ten percent."""
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


def test_replicas_that_warm_up_are_not_load() -> None:
    """kubernetes/kubernetes#59975: long warm-up was counted, and more and more were started."""
    desk = Desk(change_timeout=600.0)
    desk.set(T, ready=3)
    desk.wait_for(1, 60)
    count = sum(move.count for move in desk.decide().moves)
    desk.set(T, starting=count)
    assert all(desk.decide().moves == () for _ in range(50))


def test_one_role_drains_while_others_have_work() -> None:
    """Reference implementation: it waited until *all* queues were empty, and for ever."""
    desk = Desk()
    desk.wait_for(2, 60)
    assert desk.decide().moves
    desk.set(T, ready=4)
    desk.set(D, ready=3)
    desk.wait_for(2, 300)
    assert desk.decide().reason is not Reason.CHANGE_UNDER_WAY
