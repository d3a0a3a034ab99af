"""The balancer on simulated pools of unequal accelerators."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulationkit.runs import simulate, workload

from disagfusion.scheduling.document import validate
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.workload import Workload

ACCELERATORS = {"old": 4, "new": 3}
# `new` denoises five times as fast, and does the rest a little faster.
STAGES = {
    "encoder": {"old": {"seconds": 1.0}, "new": {"seconds": 0.8}},
    "dit": {"old": {"model": {"per_step": 5.0}}, "new": {"model": {"per_step": 1.0}}},
    "decoder": {"old": {"seconds": 3.0}, "new": {"seconds": 2.0}},
}
SHAPES = {"long": {"num_inference_steps": 8}, "short": {"num_inference_steps": 1}}
FOR_LONG = {"encoder": {"old": 1}, "dit": {"old": 2, "new": 3}, "decoder": {"old": 1}}


def unequal() -> Profile:
    fields = {
        "pools": {
            pool: {"accelerators": count, "start_seconds": 2.0}
            for pool, count in ACCELERATORS.items()
        },
        "stages": {stage: {"pools": pools} for stage, pools in STAGES.items()},
    }
    return validate(Profile, fields, name="unequal")


def shifting(**fields: Any) -> Workload:
    """Return long jobs, then short ones."""
    return workload(
        shapes=SHAPES,
        arrivals=[
            {"shapes": {"long": 1}, "start": 0, "end": 120, "every": 2.6},
            {"shapes": {"short": 1}, "start": 120, "end": 240, "every": 0.7},
        ],
        **{"initial": FOR_LONG, **fields},
    )


def test_the_ratio_of_each_pool_follows_the_mix() -> None:
    fixed, balanced = (simulate(policy, shifting(), unequal()) for policy in ("static", "hybrid"))
    assert balanced.completed == balanced.submitted
    assert balanced.latency_seconds["mean"] < 0.6 * fixed.latency_seconds["mean"]
    assert balanced.last_finish_seconds < fixed.last_finish_seconds


def test_a_failed_pool_is_replaced_by_accelerators_of_another() -> None:
    # Four of seven accelerators may be used; those of the fast pool fail and do not come back.
    what = shifting(
        initial={"encoder": {"old": 1}, "dit": {"new": 2}, "decoder": {"old": 1}},
        budget=4,
        failures=[{"at": 60, "pool": "new", "replicas": 2, "repair_seconds": 5000}],
    )
    result = simulate("hybrid", what, unequal())
    assert result.completed == result.submitted
    assert result.last_finish_seconds < 5000
    assert result.most_accelerators <= 4


def test_no_look_at_the_future() -> None:
    whole = simulate("hybrid", shifting(), unequal())
    short = simulate("hybrid", shifting(), unequal(), until=160.0)
    assert any(decision.moves for decision in whole.decisions if decision.at <= 160.0)
    assert [d for d in whole.decisions if d.at <= 160.0] == [
        d for d in short.decisions if d.at <= 160.0
    ]


@settings(max_examples=4)
@given(
    seed=st.integers(0, 10_000),
    budget=st.integers(4, 7),
    every=st.floats(1.0, 4.0),
    failing=st.sampled_from([None, "old", "new"]),
    speed=st.sampled_from([1.0, 0.5]),
)
def test_no_job_is_lost_and_neither_pools_nor_budget_are_exceeded(
    seed: int, budget: int, every: float, failing: str | None, speed: float
) -> None:
    failures = []
    if failing is not None:
        failures = [{"at": 50, "pool": failing, "replicas": 1, "repair_seconds": 60}]
    what = workload(
        shapes=SHAPES,
        arrivals=[
            {"shapes": {"long": 1}, "every": every, "end": 80},
            {"shapes": {"short": 1}, "rate": 1.0, "process": "poisson", "start": 60, "end": 120},
        ],
        initial={"encoder": {"old": 1}, "dit": {"old": 1, "new": 1}, "decoder": {"old": 1}},
        budget=budget,
        noise={"arrival_seconds": 3, "service_ratio": 0.2},
        failures=failures,
        throttles=[{"start": 40, "pool": "new", "speed": speed}],
    )
    result = simulate("hybrid", what, unequal(), seed=seed)
    assert result.completed == result.submitted > 0
    assert result.lost == result.budget_exceeded == 0
    assert result.most_accelerators <= budget


@pytest.mark.parametrize("policy", ["reference", "hpa", "plain"])
def test_rules_for_one_pool_say_so(policy: str) -> None:
    from disagfusion.errors import InvalidArgumentError

    with pytest.raises(InvalidArgumentError, match="knows one pool"):
        simulate(policy, shifting(), unequal())
