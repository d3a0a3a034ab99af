"""The examples: all of them run, and those with a known answer give it."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulationkit.runs import EXAMPLES, example_profile, example_workload, simulate

from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.shapes import WeightedShape

PROFILES = {
    "w1": "w1-one-step",
    "pools": "unequal-pools",
    "w2": "wan2.2-i2v-480p",
    "w3": "wan2.2-i2v-a10",
    "w4": "two-stage",
    "w5-flux": "w5-flux",
    "w5-flux-shifting": "w5-flux",
    "w5-cogvideox": "w5-cogvideox",
    "w5-cogvideox-shifting": "w5-cogvideox",
    "w5-hunyuanvideo": "w5-hunyuanvideo",
    "w5-hunyuanvideo-shifting": "w5-hunyuanvideo",
    "w6": "w6",
}


@pytest.mark.parametrize(
    "path", sorted((EXAMPLES / "workloads").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_workload_loads(path: Path) -> None:
    assert example_workload(path.stem).name


@pytest.mark.parametrize(
    "path", sorted((EXAMPLES / "profiles").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_profile_loads(path: Path) -> None:
    assert example_profile(path.stem).name


@pytest.mark.parametrize("name", PROFILES)
def test_every_workload_runs(name: str) -> None:
    what, costs = example_workload(name), example_profile(PROFILES[name])
    result = simulate("static", what, costs, until=20.0 + 10.0 / what.arrivals[0].peak)
    assert result.completed == result.submitted > 0
    assert result.lost == result.budget_exceeded == 0
    judged = what.measure.objective_seconds is not None and result.submitted > (
        what.measure.skip_jobs
    )
    assert (result.attainment is not None) is judged


@pytest.mark.parametrize(
    ("name", "shape", "published"),
    [
        ("w5-flux", "1024px", 6.71),
        ("w5-cogvideox", "768p-81", 550.0),
        ("w5-hunyuanvideo", "720p-129", 1904.08),
    ],
)
def test_derived_seconds_add_up_to_what_is_published(
    name: str, shape: str, published: float
) -> None:
    what, costs = example_workload(name), example_profile(name)
    stages = [stage.pools["gpu"].seconds_of(what.shapes[shape]) for stage in costs.stages.values()]
    assert sum(stages) == pytest.approx(published, rel=0.005)
    assert isinstance(what.measure.objective_seconds, dict)
    for each, objective in what.measure.objective_seconds.items():
        alone = sum(s.pools["gpu"].seconds_of(what.shapes[each]) for s in costs.stages.values())
        assert objective == int(round(4 * alone) * 1.1) + 2


@pytest.mark.parametrize("name", ["w5-flux", "w5-cogvideox", "w5-hunyuanvideo"])
def test_the_fleet_of_a_trace_is_the_exact_plan_for_it(name: str) -> None:
    what, costs = example_workload(name), example_profile(name)
    shapes = tuple(
        WeightedShape(**what.shapes[shape].model_dump()) for shape in what.arrivals[0].shapes
    )
    found = plan(costs, Demand(shapes=shapes), compare=False)
    assert found.replicas == what.initial
    assert what.arrivals[0].every is not None
    assert found.throughput > 1.0 / what.arrivals[0].every


@pytest.mark.parametrize(
    ("costs", "policy", "capacity"),
    [
        ("w1-four-steps", "static", 0.0809),
        ("w1-one-step", "static", 0.2151),
        ("w1-one-step", "static:1:5:2", 0.1980),
    ],
)
def test_a_backlog_is_worked_off_at_the_capacity_of_the_ratio(
    costs: str, policy: str, capacity: float
) -> None:
    """The facts of W1; without an initial ratio it is the exact plan's."""
    result = simulate(policy, example_workload("w1"), example_profile(costs))
    assert result.completed == 4000
    assert result.completed / result.last_finish_seconds == pytest.approx(capacity, rel=0.003)


def test_hand_overs_are_hidden_behind_compute() -> None:
    """20 ms of compute, 10 ms of transfer: a job each 20 ms and not each 30."""
    result = simulate("static", example_workload("w6"), example_profile("w6"))
    # The first job passes three stages and two links before any other ends.
    assert result.last_finish_seconds == pytest.approx(500 * 0.020 + 0.060, abs=0.005)


def test_a_transfer_longer_than_the_compute_sets_the_pace_of_two_slots() -> None:
    costs = example_profile("w6")
    pool = costs.pools["gpu"].model_copy(update={"link_gib_per_second": 0.25})
    slow = costs.model_copy(update={"pools": {"gpu": pool}})
    result = simulate("static", example_workload("w6"), slow)
    # 40 ms from the assignment to the input, then 20 ms of compute, in two slots at a time.
    assert result.last_finish_seconds == pytest.approx(500 * (0.040 + 0.020) / 2, rel=0.01)


def test_the_balancer_follows_pictures_that_grow() -> None:
    """All sizes, then small ones, with the ratio for small ones."""
    what, costs = example_workload("w5-flux-shifting"), example_profile("w5-flux")
    heavy, light = what.arrivals[1:]
    streams = (
        heavy.model_copy(update={"start": 0.0, "end": 90.0}),
        light.model_copy(update={"start": 90.0, "end": 97.0}),
    )
    what = what.model_copy(update={"arrivals": streams})
    fixed, balanced = (simulate(policy, what, costs) for policy in ("static", "hybrid"))
    assert balanced.latency_seconds["mean"] < 0.8 * fixed.latency_seconds["mean"]
    assert balanced.lost == balanced.budget_exceeded == 0
