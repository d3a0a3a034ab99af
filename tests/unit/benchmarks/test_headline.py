"""The simulated headline: which systems are compared, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.headline import PROFILES, RATES, at_rate, size_of, winners, workload_for
from benchmarks.headlinekit import simulated
from benchmarks.headlinekit.simulated import Figures, System
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.monolith import monolith_profile
from disagfusion.simulation.workload import Workload

WAN22, WAN21, QWEN = PROFILES
ENOUGH = Figures(throughput=0.01, p50=20, p95=30, attainment=0.96, cost=5)


def seconds(profile: Profile, stage: str, pool: str, shape: Shape) -> float:
    return profile.stages[stage].pools[pool].seconds_of(shape)


def alone(profile: Profile, monolith: str, shape: Shape) -> float:
    whole = monolith_profile(profile, monolith)
    return seconds(whole, "pipeline", profile.monoliths[monolith].pool, shape)


def test_profiles_give_the_throughput_that_was_published() -> None:
    profile = workload_for(QWEN)[1]
    shape = PROFILES[QWEN]
    assert 7 / seconds(profile, "dit", "rtx4090", shape) == pytest.approx(100 / 294, rel=0.001)
    assert 8 / alone(profile, "offloading", shape) == pytest.approx(100 / 550, rel=0.001)
    profile = workload_for(WAN22)[1]
    assert 8 / alone(profile, "offloading", PROFILES[WAN22]) == pytest.approx(0.022, rel=0.01)
    assert alone(profile, "hypothetical", PROFILES[WAN22]) == pytest.approx(91.0)


def test_w3_keeps_its_objective_and_others_get_one_in_proportion() -> None:
    assert workload_for(WAN22)[0].measure.objective_seconds == 136.5
    workload, profile = workload_for(QWEN)
    assert workload.measure.objective_seconds == 33.0
    assert simulated.objective(profile, workload) == pytest.approx(1.5 * (0.4 + 20.58 + 1.03))


def test_a_rate_is_reached_by_the_same_jobs_sooner() -> None:
    workload, _ = workload_for(WAN21)
    for rate in RATES:
        (stream,) = at_rate(workload, rate).arrivals
        assert stream.rate == pytest.approx(rate)
        assert stream.count == 65


def test_a_restricted_profile_knows_no_other_pool() -> None:
    profile = simulated.restrict(workload_for(WAN22)[1], "a10")
    assert list(profile.pools) == ["a10"]
    assert all(list(stage.pools) == ["a10"] for stage in profile.stages.values())
    assert set(profile.monoliths) == {"offloading", "hypothetical"}


@pytest.mark.parametrize(("name", "ratio"), [(WAN22, "1:6:1"), (WAN21, "1:5:2"), (QWEN, "1:6:1")])
def test_the_fixed_ratio_is_the_plans(name: str, ratio: str) -> None:
    workload, profile = workload_for(name)
    assert simulated.split(profile, workload).policy == f"static:{ratio}"


def test_eight_of_each_are_compared_and_the_fleet_is_paid() -> None:
    workload, profile = workload_for(WAN22)
    costs = {one.name: one.cost_per_hour for one in simulated.systems(profile, workload)}
    assert costs == pytest.approx({
        "split, balanced": 3.744, "split, fixed 1:6:1": 3.744, "8 resident, h100": 26.784,
        "8 offloading, a10": 3.744, "8 hypothetical, a10": 3.744,
    })  # fmt: skip


def test_a_fleet_saturates_at_its_capacity() -> None:
    workload, profile = workload_for(QWEN)
    few = simulated.monolith(profile, "resident", 1)
    rate = simulated.saturation(few, workload, precision=0.02)
    assert rate == pytest.approx(1 / alone(profile, "resident", PROFILES[QWEN]), rel=0.02)


def test_mixed_fleets_are_bought_for_the_rate() -> None:
    workload, profile = workload_for(WAN22)
    cheap, *rest = simulated.mixed(profile, workload, 0.085)
    assert cheap.initial is not None
    capacity = sum(
        count / seconds(profile, "dit", pool, PROFILES[WAN22])
        for pool, count in cheap.initial["dit"].items()
    )
    assert capacity >= 0.085
    assert rest
    assert all(one.cost_per_hour >= cheap.cost_per_hour for one in rest)


def test_the_smallest_fleet_that_is_enough() -> None:
    workload, profile = workload_for(QWEN)
    what = at_rate(workload, 0.085)
    candidates = [simulated.monolith(profile, "resident", count) for count in (1, 2)]
    assert simulated.smallest(candidates, what, 1) == candidates[0]
    slow = [simulated.monolith(profile, "offloading", 8)]
    assert simulated.smallest(slow, what, 1) is None
    assert size_of(None, 0.085) == {"accelerators": {}}
    assert size_of(candidates[0], 0.1)["cost"] == pytest.approx(1000 * 3.348 / 360)


def named(profile: Profile, workload: Workload, *names: str) -> list[System]:
    systems = {one.name.split()[-2].strip(","): one for one in simulated.systems(profile, workload)}
    return [systems[name] for name in names]


def test_who_wins() -> None:
    workload, profile = workload_for(WAN22)
    resident, offloading, never = named(profile, workload, "resident", "offloading", "hypothetical")
    late = replace(ENOUGH, attainment=0.9, cost=1)
    quick = replace(ENOUGH, p95=10, cost=9)
    rows = [(resident, quick), (offloading, late), (never, replace(ENOUGH, p95=1, cost=1))]
    assert winners(rows) == {"p95": [resident.name], "cost": [resident.name]}
    assert winners([(resident, late)])["cost"] == []
    tie = winners([(resident, ENOUGH), (offloading, ENOUGH)])
    assert tie["cost"] == [resident.name, offloading.name]
