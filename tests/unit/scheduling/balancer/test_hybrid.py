from __future__ import annotations

from dataclasses import replace

import pytest
from balancerkit.desk import ONE, D, Desk, E, T, make_profile
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.balancer.state import Pending
from disagfusion.scheduling.decision import Move, Place, Reason
from disagfusion.scheduling.document import validate
from disagfusion.scheduling.observation import Fresh, Invalid, JobGroup, Missing, Replicas, Stale
from disagfusion.scheduling.profile import Profile


def test_work_that_waits_for_one_stage_draws_replicas_there() -> None:
    desk = Desk()
    desk.wait_for(2, 40)
    decision = desk.decide()
    assert decision.reason is Reason.REBALANCE
    assert [(move.source, move.target) for move in decision.moves] == [(T, D)]
    assert "% better" in decision.message


def test_nothing_to_do() -> None:
    decision = Desk().decide()
    assert (decision.reason, decision.moves) == (Reason.NO_DEMAND, ())


def test_a_good_ratio_stays() -> None:
    desk = Desk()
    desk.wait_for(1, 30)
    desk.set(D, ready=1)
    desk.set(T, ready=6)
    decision = desk.decide()
    assert decision.moves == ()
    assert decision.reason in (Reason.BALANCED, Reason.WITHIN_TOLERANCE, Reason.WAIT)


def test_a_change_that_pays_later_waits() -> None:
    desk = Desk()
    desk.set(T, ready=6)
    desk.set(D, ready=1)
    # The decoder will be the bottleneck in the end, but the DiTs have work for long.
    desk.jobs = Fresh(
        (
            *desk_jobs(1, 30),
            *desk_jobs(2, 25),
        ),
        0.0,
    )
    decision = desk.decide()
    assert (decision.reason, decision.moves) == (Reason.WAIT, ())
    assert "better still in" in decision.message


def desk_jobs(stage: int, count: int) -> tuple:  # type: ignore[type-arg]
    desk = Desk()
    desk.wait_for(stage, count)
    assert isinstance(desk.jobs, Fresh)
    return desk.jobs.value


def test_one_change_at_a_time() -> None:
    desk = Desk()
    desk.wait_for(2, 40)
    assert desk.decide().moves
    desk.set(T, ready=4, draining=1)
    desk.wait_for(2, 80)
    decision = desk.decide()
    assert (decision.reason, decision.moves) == (Reason.CHANGE_UNDER_WAY, ())
    desk.set(T, draining=0)
    desk.set(D, ready=3)
    assert desk.decide().reason is not Reason.CHANGE_UNDER_WAY


def test_free_accelerators_are_used_where_they_help() -> None:
    desk = Desk()
    desk.set(T, ready=3)
    desk.wait_for(1, 30)
    decision = desk.decide()
    assert decision.reason is Reason.SCALE_UP
    assert all((move.source, move.target) == (None, T) for move in decision.moves)


def test_minima_and_maxima_hold() -> None:
    profile = make_profile(dit={"min": 5}, decoder={"max": 2})
    desk = Desk(profile)
    desk.wait_for(2, 100)
    assert desk.decide().moves == ()


def test_where_accelerators_differ_some_stop_and_others_start() -> None:
    fields = {
        "pools": {"a": {"accelerators": 8}},
        "stages": {
            "encoder": {"pools": {"a": {"seconds": 1}}},
            "dit": {"pools": {"a": {"seconds": 10, "accelerators": 2}}},
            "decoder": {"pools": {"a": {"seconds": 2}}},
        },
    }
    desk = Desk(validate(Profile, fields, name="p"))
    desk.replicas = {E: Replicas(1), T: Replicas(3), D: Replicas(1)}
    desk.wait_for(2, 100)
    decision = desk.decide()
    assert decision.reason is Reason.REBALANCE
    # One DiT stays; two leave four accelerators to decoders.
    assert decision.moves == (Move(T, None, 2), Move(None, D, 4))
    assert "4 instead of 2 of dit to decoder on a" in decision.message
    # These wait until those have stopped: no failed start meanwhile, though pools hold both.
    desk.jobs = Fresh((JobGroup(1, ONE, 1, 0.0, "a"), *desk_jobs(2, 100)), desk.now)
    desk.replicas = {E: Replicas(1), T: Replicas(1, draining=2), D: Replicas(1, starting=4)}
    assert [desk.decide().reason for _ in range(9)] == [Reason.CHANGE_UNDER_WAY] * 9


def test_a_stage_that_takes_more_starts_when_enough_have_stopped() -> None:
    fields = {
        "pools": {"a": {"accelerators": 8}},
        "stages": {
            "encoder": {"pools": {"a": {"seconds": 1}}},
            "dit": {"pools": {"a": {"seconds": 10, "accelerators": 3}}},
            "decoder": {"pools": {"a": {"seconds": 2}}},
        },
    }
    desk = Desk(validate(Profile, fields, name="p"))
    desk.replicas = {E: Replicas(1), T: Replicas(1), D: Replicas(4)}
    desk.wait_for(1, 100)
    assert desk.decide().moves == (Move(D, None, 3), Move(None, T, 1))


def test_paused() -> None:
    desk = Desk(paused=True)
    desk.wait_for(2, 40)
    decision = desk.decide()
    assert (decision.reason, decision.moves) == (Reason.PAUSED, ())


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (Stale((), 3.0), Reason.METRICS_STALE),
        (Invalid("NaN"), Reason.METRICS_INVALID),
    ],
)
def test_what_is_no_measurement_is_not_acted_on(signal: object, reason: Reason) -> None:
    desk = Desk()
    desk.jobs = signal  # type: ignore[assignment]
    decision = desk.decide()
    assert (decision.reason, decision.moves) == (reason, ())
    assert "unfinished jobs" in decision.message


def test_the_fallback_comes_after_long_blindness() -> None:
    desk = Desk(fallback_ratio={E: 2, T: 4, D: 2}, fallback="ratio", fallback_after=60.0)
    desk.lose_signals()
    reasons = [desk.decide().reason for _ in range(6)]
    assert set(reasons) == {Reason.METRICS_MISSING}
    decision = desk.decide()
    assert decision.reason is Reason.FALLBACK
    assert decision.moves == (Move(T, E),)
    desk.carry_out(decision)
    assert desk.decide(200.0).moves == ()


def test_all_stages_go_to_zero_and_come_back_together() -> None:
    desk = Desk(zero_after=30.0)
    for _ in range(3):
        assert desk.decide().moves == ()
    decision = desk.decide()
    assert decision.reason is Reason.SCALE_DOWN
    assert {move.source for move in decision.moves} == {E, T, D}
    desk.carry_out(decision)
    assert desk.decide().moves == ()
    desk.wait_for(0, 1)
    decision = desk.decide()
    assert decision.reason is Reason.SCALE_UP
    assert {move.target: move.count for move in decision.moves} == {E: 1, T: 5, D: 2}


@pytest.mark.parametrize("fallback", ["keep", "ratio"])
def test_who_sleeps_and_hears_nothing_wakes(fallback: str) -> None:
    ratio = {E: 2, T: 4, D: 2}
    desk = Desk(zero_after=30.0, fallback_ratio=ratio, fallback=fallback, fallback_after=60.0)
    for _ in range(4):
        desk.carry_out(desk.decide())
    desk.lose_signals()
    assert {desk.decide().reason for _ in range(6)} == {Reason.METRICS_MISSING}
    decision = desk.decide()
    assert decision.reason is Reason.FALLBACK
    expected = ratio if fallback == "ratio" else {E: 1, T: 5, D: 2}
    assert {move.target: move.count for move in decision.moves} == expected
    desk.carry_out(decision)
    # Awake now, and still blind.
    assert [desk.decide().moves for _ in range(20)] == [()] * 20


def test_all_stages_go_to_zero_though_one_is_being_repaired() -> None:
    desk = Desk(make_profile(dit={"min": 2}), zero_after=30.0)
    desk.replicas = {E: Replicas(1), T: Replicas(1, starting=1), D: Replicas(1)}
    reasons = []
    for _ in range(12):
        decision = desk.decide()
        desk.carry_out(decision)
        reasons.append(decision.reason)
    assert [reason for reason in reasons if reason is not Reason.NO_DEMAND] == [Reason.SCALE_DOWN]
    assert all(count == Replicas() for count in desk.replicas.values())
    # What comes up all the same, after a repair that could not be taken back, leaves again.
    desk.set(T, ready=1)
    assert desk.decide().moves == (Move(T, None, 1),)
    desk.set(T, ready=0)
    desk.wait_for(0, 1)
    wake = desk.decide()
    assert {move.target: move.count for move in wake.moves} == {E: 1, T: 2, D: 1}


def test_waking_goes_on_until_all_are_there() -> None:
    desk = Desk(zero_after=30.0)
    for _ in range(4):
        desk.carry_out(desk.decide())
    # Half of the accelerators have failed when work comes.
    desk.accelerators = 4
    desk.wait_for(0, 1)
    first = desk.decide()
    assert {move.target for move in first.moves} == {E, T, D}
    assert sum(move.count for move in first.moves) == 4
    desk.carry_out(first)
    desk.accelerators = 8
    for _ in range(3):
        desk.carry_out(desk.decide())
    assert {place: count.ready for place, count in desk.replicas.items()} == {E: 1, T: 5, D: 2}


def test_only_starts_of_its_own_are_given_up() -> None:
    desk = Desk()
    own = (Pending(Move(None, T, 3), 0.0, 5.0), Pending(Move(None, D, 1), 0.0, 5.0))
    desk.state = replace(desk.state, pending=own)
    # Two decoders are being repaired.
    desk.replicas = {E: Replicas(1), T: Replicas(1, starting=3), D: Replicas(1, starting=3)}
    decision = desk.decide()
    assert decision.reason is Reason.PENDING_EXPIRED
    assert decision.moves == (
        Move(T, None, 3, cancel=True),
        Move(D, None, 1, cancel=True),
    )


def test_a_change_in_place_that_still_drains_gives_up_nobody_elses_start() -> None:
    desk = Desk()
    desk.state = replace(desk.state, pending=(Pending(Move(T, D, 2), 0.0, 5.0),))
    desk.replicas = {E: Replicas(1), T: Replicas(3, draining=1), D: Replicas(1, starting=3)}
    # One of the two has begun to start; the other two are somebody else's.
    assert desk.decide().moves == (Move(D, None, 1, cancel=True),)


def test_no_replica_is_asked_for_twice() -> None:
    desk = Desk(fallback_ratio={E: 3, T: 1, D: 4}, fallback="ratio", fallback_after=0.0)
    desk.replicas = {E: Replicas(1), T: Replicas(ready=2, starting=3), D: Replicas(2)}
    desk.lose_signals()
    assert desk.decide().moves == (Move(T, E, 1),)


def test_the_last_ready_replica_stays_while_another_starts() -> None:
    desk = Desk()
    # Four of five DiTs have failed and wait for their repair.
    desk.replicas = {E: Replicas(1), T: Replicas(1, starting=4), D: Replicas(2)}
    desk.wait_for(2, 100)
    assert all(move.source != T or move.cancel for move in desk.decide().moves)


def test_without_arrivals_the_ratio_stays() -> None:
    desk = Desk(fallback_ratio={E: 2, T: 4, D: 2}, fallback="ratio", fallback_after=60.0)
    desk.wait_for(2, 60)
    desk.arrived = Missing("no such series")
    for _ in range(6):
        decision = desk.decide()
        assert (decision.reason, decision.moves) == (Reason.METRICS_MISSING, ())
        assert decision.message == "arrivals: no such series"
    assert desk.decide().reason is Reason.FALLBACK


places = st.sampled_from([E, T, D])
counts = st.builds(
    Replicas,
    ready=st.integers(0, 4),
    starting=st.integers(0, 2),
    draining=st.integers(0, 2),
)


@given(
    replicas=st.fixed_dictionaries({E: counts, T: counts, D: counts}),
    jobs=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=4),
    budget=st.integers(3, 12),
    accelerators=st.integers(0, 12),
    arrivals=st.integers(0, 30),
)
def test_no_decision_takes_more_than_there_is(
    replicas: dict[Place, Replicas],
    jobs: list[tuple[int, int]],
    budget: int,
    accelerators: int,
    arrivals: int,
) -> None:
    desk = Desk(budget=budget)
    desk.replicas, desk.accelerators = replicas, accelerators
    desk.decide()
    groups = [group for stage, count in jobs for group in desk_jobs(stage, count)]
    desk.jobs, desk.arrived = Fresh(tuple(groups), 10.0), Fresh({ONE: arrivals}, 10.0)
    decision = desk.decide()
    held = sum(count.held for count in replicas.values())
    started = sum(move.count for move in decision.moves if move.source is None)
    assert started <= max(0, min(budget, accelerators, 8) - held)
    for place, count in replicas.items():
        leaving = sum(move.count for move in decision.moves if move.source == place)
        assert leaving <= count.ready
        assert leaving == 0 or count.committed - leaving >= 1


@pytest.mark.parametrize(
    ("coming", "needed"),
    [
        (0, ", 2 % needed"),
        (3, ", 5 % needed because it will not last"),
        (4.5, ", 15 % needed because the jobs that come would be too many then"),
    ],
)
def test_a_decision_says_how_much_better_it_had_to_be(coming: float, needed: str) -> None:
    desk = Desk()
    desk.wait_for(2, 300)
    desk.arrived = Fresh({ONE: coming} if coming else {}, 0.0)
    # How many come is known from the second look on.
    first = replace(desk.observation(), jobs=Fresh((), 0.0), arrived=Fresh({}, 0.0))
    desk.state, _ = desk.balancer.decide(desk.state, first, desk.now)
    assert desk.decide().message.endswith(f"% better{needed}")


def test_a_minimum_that_there_is_no_room_for_is_named() -> None:
    desk = Desk(make_profile(encoder={"min": 2}), budget=3)
    for place in (E, T, D):
        desk.set(place, ready=1)
    desk.wait_for(1, 5)
    decision = desk.decide()
    assert decision.reason is Reason.AT_LIMIT
    assert decision.message.endswith("; encoder has 1 of 2")
