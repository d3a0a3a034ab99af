"""The planner: known answers, what it says, what it refuses."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from planningkit.large import large_profile

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.plan import Plan
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile

EXAMPLES = Path(__file__).parents[3] / "examples" / "profiles"


def example(name: str) -> Profile:
    return parse(Profile, (EXAMPLES / f"{name}.yaml").read_text(), name=name)


def profile(pools: dict[str, Any], **stages: Any) -> Profile:
    return Profile.model_validate({"pools": pools, "stages": stages})


def ratio(replicas: dict[str, dict[str, int]]) -> list[int]:
    return [sum(pools.values()) for pools in replicas.values()]


@pytest.mark.parametrize(
    ("name", "best", "throughput", "second", "lower"),
    [
        ("w1-four-steps", [1, 6, 1], 0.0809, [1, 5, 2], 0.0674),
        ("w1-one-step", [2, 4, 2], 0.2151, [1, 5, 2], 0.1980),
        ("w1-two-stages", [21, 779], 51.93, [20, 780], 50.0),
    ],
)
def test_the_published_stage_times(
    name: str, best: list[int], throughput: float, second: list[int], lower: float
) -> None:
    found = plan(example(name))
    assert ratio(found.replicas) == best
    assert found.throughput == pytest.approx(throughput, abs=0.005 if throughput > 1 else 5e-5)
    assert found.bottleneck == "dit"
    assert found.proven
    assert found.runner_up is not None
    assert ratio(found.runner_up.replicas) == second
    assert found.runner_up.throughput == pytest.approx(lower, abs=5e-5)


def test_the_runner_ups_reason_has_numbers() -> None:
    found = plan(example("w1-one-step"))
    assert found.runner_up is not None
    assert found.runner_up.reason == (
        "0.198 jobs/s, 8 % less: encoder would be the bottleneck with 1 replica of 5.05 s"
    )
    assert found.reason == (
        "dit is the slowest stage with 4 replicas of 18.6 s, and all 8 accelerators are used"
    )


def test_groups_say_the_same_as_replicas() -> None:
    pools = {"a": {"accelerators": 6}, "b": {"accelerators": 3}}
    found = plan(
        profile(
            pools,
            encoder={"pools": {"b": {"seconds": 1.0}}},
            dit={"pools": {"a": {"seconds": 4.0, "accelerators": 2}, "b": {"seconds": 9.0}}},
        )
    )
    assert found.replicas == {
        stage: {group.pool: group.replicas for group in found.groups if group.stages == (stage,)}
        for stage in ("encoder", "dit")
    }
    assert [group.parallel_degree for group in found.groups if group.stages == ("dit",)] == [2, 1]
    assert found.accelerators == sum(one.replicas * one.parallel_degree for one in found.groups)


def test_decimals_are_taken_at_their_word() -> None:
    """0.1 + 0.2 is 0.3 here: three replicas of 0.3 s do as much as one of 0.1 s, not less."""
    pools = {"a": {"accelerators": 4}}
    found = plan(
        profile(
            pools,
            encoder={"pools": {"a": {"seconds": 0.1}}},
            dit={"pools": {"a": {"seconds": 0.3}}},
        )
    )
    assert (found.bottleneck, found.throughput) == ("encoder", 10.0)


def test_the_mean_is_over_the_mix() -> None:
    shapes = [
        {"height": 1000, "width": 1000, "weight": 3},
        {"height": 1000, "width": 2000, "weight": 1},
    ]
    found = plan(
        profile({"a": {"accelerators": 1}}, dit={"pools": {"a": {"model": {"per_megapixel": 4}}}}),
        Demand.model_validate({"shapes": shapes}),
    )
    assert found.throughput == pytest.approx(1 / 5)


def test_a_rate_is_met_at_least_cost() -> None:
    pools = {
        "fast": {"accelerators": 10, "cost_per_hour": 4.0},
        "slow": {"accelerators": 10, "cost_per_hour": 1.0},
    }
    costs = profile(pools, dit={"pools": {"fast": {"seconds": 1.0}, "slow": {"seconds": 3.0}}})
    found = plan(costs, Demand(rate=2.0, headroom=0.5))
    assert found.replicas == {"dit": {"slow": 9}}
    assert (found.cost_per_hour, found.meets_demand) == (9.0, True)
    assert "the cheapest plan (9 an hour) that does 2 jobs/s with 50 % headroom" in found.reason
    more = plan(costs, Demand(rate=20.0))
    assert (more.meets_demand, more.accelerators) == (False, 20)
    assert more.reason.startswith("20 jobs/s with 10 % headroom cannot be reached")
    assert plan(costs).meets_demand is None


def test_of_equal_plans_the_nearest_is_chosen() -> None:
    pools = {"a": {"accelerators": 4}, "b": {"accelerators": 4}}
    place = {"pools": {"a": {"seconds": 1.0}, "b": {"seconds": 1.0}}}
    costs = profile(pools, encoder=place, dit=place)
    running = {"encoder": {"b": 4}, "dit": {"a": 4}}
    found = plan(costs, current=running)
    assert (found.replicas, found.moves) == (running, 0)
    assert plan(costs, current={"encoder": {"a": 1}, "dit": {"b": 2}}).moves == 5


@pytest.mark.parametrize(
    ("pools", "stages", "budget", "sentence"),
    [
        (
            {"a": {"accelerators": 9}},
            {
                "encoder": {"min": 2, "pools": {"a": {"seconds": 1}}},
                "dit": {"min": 3, "pools": {"a": {"seconds": 1}}},
            },
            4,
            "the stages' minima take 5 accelerators, the budget is 4",
        ),
        (
            {"a10": {"accelerators": 8, "memory_gib": 24}},
            {"dit": {"pools": {"a10": {"seconds": 1, "memory_gib": 38}}}},
            None,
            "dit fits no pool: 512×512 needs 38 GiB, a10 has 24",
        ),
        (
            {"a": {"accelerators": 5}},
            {"dit": {"min": 2, "pools": {"a": {"seconds": 1, "accelerators": 3}}}},
            None,
            "dit needs at least 2 replicas, a has room for 1",
        ),
        (
            {"a": {"accelerators": 3}, "b": {"accelerators": 9}},
            {
                "encoder": {"min": 2, "pools": {"a": {"seconds": 1}}},
                "dit": {"min": 2, "pools": {"a": {"seconds": 1}}},
                "decoder": {"min": 2, "pools": {"b": {"seconds": 1}}},
            },
            None,
            "the minima of encoder and dit take 4 accelerators, a has 3",
        ),
        (
            {"a": {"accelerators": 4}, "b": {"accelerators": 1}},
            {
                "encoder": {
                    "min": 2,
                    "pools": {
                        "a": {"seconds": 1, "accelerators": 3},
                        "b": {"seconds": 1, "accelerators": 1},
                    },
                },
                "dit": {"min": 2, "pools": {"a": {"seconds": 1}}},
            },
            None,
            "pools, budget, minima and maxima cannot all be kept",
        ),
    ],
)
def test_what_conflicts_is_named(
    pools: dict[str, Any], stages: dict[str, Any], budget: int | None, sentence: str
) -> None:
    with pytest.raises(FailedPreconditionError) as refused:
        plan(profile(pools, **stages), budget=budget)
    assert refused.value.reason == "NO_PLAN"
    assert sentence in refused.value.message


def test_a_stage_that_may_be_empty_and_fits_nowhere_lets_no_job_pass() -> None:
    pools = {"a": {"accelerators": 4, "memory_gib": 8}, "b": {"accelerators": 4}}
    found = plan(
        profile(
            pools,
            encoder={"pools": {"b": {"seconds": 1}}},
            dit={"min": 0, "pools": {"a": {"seconds": 1, "memory_gib": 9}}},
        )
    )
    assert (found.throughput, found.replicas) == (0.0, {"encoder": {"b": 1}, "dit": {}})
    assert found.reason.startswith("no job can be done: dit fits no pool")
    assert found.runner_up is None


def test_nothing_needed_is_nothing_used() -> None:
    pools = {"a": {"accelerators": 0}, "b": {"accelerators": 0}}
    place = {"min": 0, "pools": {"a": {"seconds": 1}, "b": {"seconds": 2}}}
    found = plan(profile(pools, encoder=place, dit=place), budget=0)
    assert (found.accelerators, found.throughput, found.groups) == (0, 0.0, ())


def test_bad_arguments_are_named() -> None:
    shaped = profile({"a": {"accelerators": 1}}, dit={"pools": {"a": {"model": {"per_step": 1.0}}}})
    with pytest.raises(InvalidArgumentError, match=r"^--demand: what dit costs depends on"):
        plan(shaped)
    plain = example("w1-one-step")
    with pytest.raises(InvalidArgumentError, match=r"^--budget: -1"):
        plan(plain, budget=-1)
    with pytest.raises(InvalidArgumentError, match="no such stage: vae"):
        plan(plain, current={"vae": {"a10": 1}})
    with pytest.raises(InvalidArgumentError, match="no such pool: l4"):
        plan(plain, current={"dit": {"l4": 1}})
    with pytest.raises(InvalidArgumentError, match=r"dit\.a10"):
        plan(plain, current={"dit": {"a10": -1}})


@pytest.mark.parametrize("kind", ["any", "rounded", "factor"])
@pytest.mark.parametrize("budget", [None, 6_000])
def test_ten_thousand_accelerators(kind: str, budget: int | None) -> None:
    costs = large_profile(Random(7), kind)
    found = plan(costs, budget=budget, compare=False)
    assert found.proven
    for name, pool in costs.pools.items():
        taken = sum(one.replicas * one.parallel_degree for one in found.groups if one.pool == name)
        assert taken <= pool.accelerators
    assert found.accelerators <= (budget or 10_000)
    assert found.throughput == min(found.capacity.values())
    assert plan(costs, budget=budget, compare=False) == found
    assert not _improved_by_an_exchange(costs, found, budget)


def _improved_by_an_exchange(profile: Profile, found: Plan, budget: int | None) -> bool:
    """Whether two stages that trade two accelerators of two pools raise the throughput."""
    stages, pools = list(profile.stages), list(profile.pools)
    rates = {(s, p): 1 / profile.stages[s].pools[p].seconds for s in stages for p in pools}  # type: ignore[operator]
    for low in stages:
        for high in stages:
            for p in pools:
                for q in pools:
                    if low == high or not found.replicas[high].get(p):
                        continue
                    if not found.replicas[low].get(q):
                        continue
                    changed = dict(found.capacity)
                    changed[low] += rates[low, p] - rates[low, q]
                    changed[high] += rates[high, q] - rates[high, p]
                    if min(changed.values()) > found.throughput * (1 + 1e-12):
                        return True
    return False


def test_a_search_that_ends_early_says_so() -> None:
    found = plan(large_profile(Random(3), "rounded"), limit=30)
    assert not found.proven
    assert "not proven: the search ended after" in found.reason
    assert "no plan does more than" in found.reason
    assert found.runner_up is not None
    assert "the best that was found" in found.runner_up.reason
