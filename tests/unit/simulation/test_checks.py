"""Workloads, profiles and ratios that do not fit together, and jobs that do not fit a pool."""

from __future__ import annotations

import random
from typing import Any

import pytest
from simulationkit.runs import profile, simulate, workload

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.document import validate
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.policies.static import Static
from disagfusion.simulation.run import Simulation

SECONDS = {"encoder": 1.0, "dit": 4.0, "decoder": 2.0}
RATIO = {"encoder": {"a": 1}, "dit": {"a": 2}, "decoder": {"a": 1}}
SHAPES: dict[str, Any] = {
    "small": {"height": 1000, "width": 1000},
    "large": {"height": 1000, "width": 1000, "num_frames": 2},
    "huge": {"height": 1000, "width": 1000, "num_frames": 5},
}


def two_pools(**fields: Any) -> Profile:
    """Return a profile in which large jobs fit one pool only, where they take longer."""
    memory = {"per_megapixel": 20}
    dit = {pool: {"seconds": s, "memory_gib": memory} for pool, s in (("old", 4), ("new", 8))}
    return validate(
        Profile,
        {
            "pools": {
                "old": {"accelerators": 4, "memory_gib": 24},
                "new": {"accelerators": 4, "memory_gib": 80},
            },
            "stages": {
                "encoder": {"pools": {"old": {"seconds": 1}, "new": {"seconds": 1}}},
                "dit": {"pools": dit},
            },
            **fields,
        },
        name="profile",
    )


def jobs(shape: str, **fields: Any) -> Any:
    return workload(
        shapes=SHAPES, arrivals=[{"shapes": {shape: 1}, "every": 2, "count": 30}], **fields
    )


@pytest.mark.parametrize(
    ("fields", "field", "expected"),
    [
        ({"rebind_seconds": {"dti": 30}}, "rebind_seconds.dti", "encoder, dit, decoder"),
        (
            {"failures": [{"at": 1, "pool": "a", "replicas": 1, "stage": "dti"}]},
            "failures.0.stage",
            "encoder, dit, decoder",
        ),
        ({"failures": [{"at": 1, "pool": "b", "replicas": 1}]}, "failures.0.pool", "a"),
        ({"throttles": [{"speed": 1}, {"pool": "b", "speed": 1}]}, "throttles.1.pool", "a"),
        (
            {"throttles": [{"stage": "dti", "speed": 1}]},
            "throttles.0.stage",
            "encoder, dit, decoder",
        ),
        ({"initial": {**RATIO, "dit": {"a": 2, "b": 0}}}, "initial.dit.b", "a"),
    ],
)
def test_names_that_nothing_has(fields: dict[str, Any], field: str, expected: str) -> None:
    what = workload(trace=[[0, "one"]], **{"initial": RATIO, **fields})
    with pytest.raises(InvalidArgumentError) as raised:
        simulate("hybrid", what, profile(SECONDS))
    assert (raised.value.field, raised.value.expected) == (field, expected)


def test_stages_are_named_although_the_pipeline_is_not_split() -> None:
    costs = profile(SECONDS)
    costs = costs.model_copy(
        update={"monoliths": validate(
            Profile, {**costs.model_dump(), "monoliths": {"resident": {"pool": "a"}}}, name="p"
        ).monoliths}
    )  # fmt: skip
    failure = {"at": 1, "pool": "a", "stage": "dit", "replicas": 1}
    what = workload(trace=[[0, "one"]], initial=RATIO, failures=[failure])
    # Nobody there is a DiT.
    assert simulate("monolith:resident:2", what, costs).last_finish_seconds == 7.0


@pytest.mark.parametrize(
    ("policy", "initial", "message"),
    [
        ("static:1:60:1", RATIO, "--policy: takes 62 accelerators of a (expected at most 8)"),
        ("static:1:5:1", RATIO, "--policy: takes 7 accelerators (expected at most the budget, 6)"),
        (
            "hybrid",
            {**RATIO, "dit": {"a": 7}},
            "initial: takes 9 accelerators of a (expected at most 8)",
        ),
    ],
)
def test_more_replicas_than_there_is_room_for(
    policy: str, initial: dict[str, dict[str, int]], message: str
) -> None:
    what = workload(trace=[[0, "one"]], initial=initial, budget=6 if ":5:" in policy else None)
    with pytest.raises(InvalidArgumentError) as raised:
        simulate(policy, what, profile(SECONDS))
    assert raised.value.message == message


def test_each_pool_has_its_own_room() -> None:
    what = jobs("small", initial={"encoder": {"new": 1}, "dit": {"old": 5}})
    with pytest.raises(InvalidArgumentError) as raised:
        simulate("static", what, two_pools())
    assert raised.value.message == "initial: takes 5 accelerators of old (expected at most 4)"


def test_a_job_that_fits_no_pool_is_refused() -> None:
    what = jobs("huge", initial={"encoder": {"old": 2}, "dit": {"new": 2}})
    with pytest.raises(InvalidArgumentError) as raised:
        simulate("static", what, two_pools())
    assert raised.value.message == (
        "shapes.huge: a job of shape huge needs 100 GiB for dit on old"
        " (expected at most 24 on old, 80 on new)"
    )


def test_no_replica_begins_where_a_job_does_not_fit() -> None:
    what = jobs("large", initial={"encoder": {"old": 2}, "dit": {"old": 1, "new": 2}})
    with pytest.raises(InvalidArgumentError) as raised:
        simulate("static", what, two_pools())
    assert raised.value.message == (
        "initial.dit.old: a job of shape large needs 40 GiB for dit on old"
        " (expected replicas on new: old has 24)"
    )


@pytest.mark.parametrize("given", [True, False])
def test_no_policy_puts_a_stage_where_a_job_does_not_fit(given: bool) -> None:
    initial = {"encoder": {"old": 2}, "dit": {"new": 1}} if given else None
    for shape, used in (("small", {"old", "new"}), ("large", {"new"})):
        result = simulate("hybrid", jobs(shape, initial=initial), two_pools())
        assert result.completed == 30
        targets = {
            move.target.pool
            for decision in result.decisions
            for move in decision.moves
            if move.target is not None and move.target.stage == "dit"
        }
        assert targets <= used
        if given:
            # On the faster pool first, where they fit.
            assert "old" in targets or shape == "large"


def test_shapes_that_never_come_may_be_of_any_size() -> None:
    what = jobs("small", initial={"encoder": {"old": 1}, "dit": {"old": 2}})
    assert simulate("static", what, two_pools()).completed == 30


def test_a_simulation_without_names_looks_at_memory_too() -> None:
    what = jobs("large", initial={"encoder": {"old": 1}, "dit": {"new": 2}})
    with pytest.raises(InvalidArgumentError) as raised:
        Simulation(
            what,
            two_pools(),
            Static(),
            initial=what.initial or {},
            generator=lambda _: random.Random(0),
        )
    assert raised.value.field == "stages.dit.pools.old"
