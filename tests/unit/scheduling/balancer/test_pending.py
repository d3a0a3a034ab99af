"""When a change counts as finished: only what it moves itself keeps others waiting."""

from __future__ import annotations

from balancerkit.desk import D, Desk, T

from disagfusion.scheduling.decision import Reason


def test_replicas_that_failed_where_a_change_began_do_not_hold_it_up() -> None:
    """The one that was to become a decoder fails together with another; both await repair."""
    desk = Desk()
    desk.wait_for(2, 40)
    assert desk.decide().moves
    desk.set(T, ready=4, draining=1)
    assert desk.decide().reason is Reason.CHANGE_UNDER_WAY
    desk.set(T, ready=3, draining=0, starting=2)
    assert desk.decide().reason is not Reason.CHANGE_UNDER_WAY


def test_a_change_is_under_way_until_its_replica_takes_work() -> None:
    desk = Desk()
    desk.wait_for(2, 40)
    assert desk.decide().moves
    desk.set(T, ready=4, draining=1)
    assert desk.decide().reason is Reason.CHANGE_UNDER_WAY
    desk.set(T, draining=0)
    desk.set(D, starting=1)
    assert desk.decide().reason is Reason.CHANGE_UNDER_WAY
    desk.set(D, ready=3, starting=0)
    assert desk.decide().reason is not Reason.CHANGE_UNDER_WAY
