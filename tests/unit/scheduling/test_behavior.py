"""The rules of Kubernetes' HorizontalPodAutoscaler, with the examples of its documentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.behavior import (
    Behavior,
    Direction,
    RatePolicy,
    ScaleHistory,
    limit,
)

FREE = Direction(0.0, ())


def apply(behavior: Behavior, current: int, recommendations: list[tuple[float, int]]) -> list[int]:
    """Return the replicas after each recommendation."""
    history = ScaleHistory()
    found = []
    for now, wanted in recommendations:
        history, limited = limit(history, current, wanted, behavior, now)
        history = history.applied(now, limited.replicas - current)
        current = limited.replicas
        found.append(current)
    return found


def test_without_rules_every_recommendation_holds_at_once() -> None:
    assert apply(Behavior(FREE, FREE), 3, [(0, 9), (15, 1), (30, 4)]) == [9, 1, 4]


def test_the_highest_of_five_minutes_decides_on_the_way_down() -> None:
    steps = [(0.0, 10), (60.0, 2), (290.0, 2), (301.0, 3), (361.0, 2), (602.0, 2)]
    assert apply(Behavior(), 10, steps) == [10, 10, 10, 3, 3, 2]


def test_the_lowest_of_a_window_decides_on_the_way_up() -> None:
    behavior = Behavior(up=Direction(60.0, ()), down=FREE)
    assert apply(behavior, 2, [(0, 2), (15, 8), (45, 6), (61, 8), (110, 8)]) == [2, 2, 2, 6, 8]


def test_up_by_four_pods_or_twice_as_many_in_fifteen_seconds() -> None:
    steps = [(0.0, 100), (5.0, 100), (15.0, 100), (30.0, 100)]
    # The documentation's default: the greater of 100 % and four pods each 15 s.
    assert apply(Behavior(down=FREE), 1, steps) == [5, 5, 10, 20]


def test_down_by_one_pod_a_minute() -> None:
    down = Direction(0.0, (RatePolicy("Pods", 1, 60.0),))
    steps = [(0.0, 1), (30.0, 1), (60.0, 1), (121.0, 1)]
    assert apply(Behavior(FREE, down), 4, steps) == [3, 3, 2, 1]


@pytest.mark.parametrize(("select", "expected"), [("Max", 60), ("Min", 72), ("Disabled", 80)])
def test_which_of_two_policies(select: str, expected: int) -> None:
    # The documentation's example: four pods or a tenth, beside a quarter.
    policies = (RatePolicy("Percent", 10, 60.0), RatePolicy("Percent", 25, 60.0))
    down = Direction(0.0, policies, select)  # type: ignore[arg-type]
    assert apply(Behavior(FREE, down), 80, [(0.0, 10)]) == [expected]


@given(
    current=st.integers(0, 50),
    steps=st.lists(st.tuples(st.floats(1, 100), st.integers(0, 60)), min_size=1, max_size=20),
)
def test_no_step_goes_past_what_was_recommended(
    current: int, steps: list[tuple[float, int]]
) -> None:
    now, recommendations = 0.0, []
    for elapsed, wanted in steps:
        now += elapsed
        recommendations.append((now, wanted))
    values = [wanted for _, wanted in recommendations]
    for found in apply(Behavior(), current, recommendations):
        assert min(current, *values) <= found <= max(current, *values)
