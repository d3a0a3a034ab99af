"""What is true of plans whatever the numbers."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from disagfusion.scheduling.plan import Plan
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile

few = settings(max_examples=25, deadline=None)

hundredths = st.integers(10, 9_000)
times = st.lists(st.lists(hundredths, min_size=3, max_size=3), min_size=1, max_size=3)
sizes = st.lists(st.integers(1, 9), min_size=3, max_size=3)
prices = st.lists(st.sampled_from([0.0, 0.35, 1.0, 2.5]), min_size=3, max_size=3)


def profile(
    seconds: list[list[int]],
    pools: list[int],
    costs: list[float],
    order: tuple[int, ...] = (0, 1, 2),
) -> Profile:
    document: dict[str, Any] = {
        "pools": {f"p{p}": {"accelerators": pools[p], "cost_per_hour": costs[p]} for p in order},
        "stages": {
            f"s{s}": {"pools": {f"p{p}": {"seconds": row[p] / 100} for p in order}}
            for s, row in enumerate(seconds)
        },
    }
    return Profile.model_validate(document)


def value(found: Plan) -> tuple[float, float, int]:
    return found.throughput, found.cost_per_hour, found.accelerators


@few
@given(times, sizes, prices, st.integers(3, 20))
def test_more_budget_never_lowers_the_throughput(
    seconds: list[list[int]], pools: list[int], costs: list[float], budget: int
) -> None:
    costs_ = profile(seconds, pools, costs)
    budget = min(budget, sum(pools))
    less, more = (plan(costs_, budget=one, compare=False) for one in (budget, budget + 1))
    assert less.throughput <= more.throughput
    assert less.accelerators <= budget


@few
@given(times, sizes, prices, st.sampled_from([2, 3, 7, 10]))
def test_other_units_of_time_leave_the_plan(
    seconds: list[list[int]], pools: list[int], costs: list[float], factor: int
) -> None:
    slower = [[one * factor for one in row] for row in seconds]
    found = plan(profile(seconds, pools, costs))
    again = plan(profile(slower, pools, costs))
    assert again.replicas == found.replicas
    assert (again.runner_up is None) == (found.runner_up is None)
    if found.runner_up and again.runner_up:
        assert again.runner_up.replicas == found.runner_up.replicas


@few
@given(times, sizes, prices, st.permutations([0, 1, 2]))
def test_the_order_of_pools_leaves_the_value(
    seconds: list[list[int]], pools: list[int], costs: list[float], order: list[int]
) -> None:
    found = plan(profile(seconds, pools, costs), compare=False)
    again = plan(profile(seconds, pools, costs, tuple(order)), compare=False)
    assert value(again) == value(found)


@few
@given(times, sizes, prices)
def test_what_runs_already_needs_no_moves(
    seconds: list[list[int]], pools: list[int], costs: list[float]
) -> None:
    found = plan(profile(seconds, pools, costs), compare=False)
    again = plan(profile(seconds, pools, costs), current=found.replicas, compare=False)
    assert (again.moves, again.replicas) == (0, found.replicas)
