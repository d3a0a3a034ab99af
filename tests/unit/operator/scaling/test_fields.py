"""Each field of pools and scaling has an effect."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from disagfusion_operator.api.status import Condition
from disagfusion_operator.scaling.controller import Scaling

from disagfusion.scheduling.decision import Place

from .members import pool, profile
from .pipelines import PROFILE, finding, shifted, spec, started, steady
from .world import Known, Told, World, counts


async def test_a_great_tolerance_keeps_what_is_nearly_as_good() -> None:
    heavy = profile("a", encoder=1.0, dit=2.0, decoder=6.0)
    for tolerance, moves in (("0.02", True), ("0.95", False)):
        world, member = shifted()
        before = counts(member, world)
        world.change(member, spec(profile=heavy, tolerance=tolerance))
        async with world.scaling() as scaling:
            await world.run(scaling, 60)
        assert (counts(member, world) != before) is moves


async def test_decisions_come_once_in_a_period() -> None:
    for period, most in ((5, 13), (30, 3)):
        world, member = started(0.5, periodSeconds=period)
        times = set()
        async with world.scaling() as scaling:
            for _ in range(60):
                await world.run(scaling, 1)
                decided = scaling._scalers[member.key].mind.decision
                if decided is not None:
                    times.add(decided.at)
        assert most - 2 <= len(times) <= most


async def test_the_cheaper_pool_is_used_first_where_cost_counts() -> None:
    world = World()
    for name in "ab":
        world.add_nodes(name, 1, 8)
    pools = {"a": pool("a", costPerHour="5"), "b": pool("b", costPerHour="1")}
    both = profile("ab", encoder=1.0, dit=6.0, decoder=1.0)
    scaling_spec = {"objective": "Cost", "profile": both}
    member = world.add("p", {"pools": pools, "scaling": scaling_spec}, steady(0.6))
    async with world.scaling() as scaling:
        await world.run(scaling, 120)
    dear, cheap = (world.asked(member)[Place("dit", name)] for name in "ab")
    assert cheap >= 4
    assert dear == 0


async def test_a_stage_stays_away_from_accelerators_that_are_too_small() -> None:
    world = World()
    for name in "ab":
        world.add_nodes(name, 1, 8)
    inline = profile("ab", encoder=1.0, dit=6.0, decoder=1.0)
    for costs in inline["inline"]["stages"]["dit"]["pools"].values():
        costs["memory_gib"] = 30.0
    pools = {"a": pool("a", memory="24Gi"), "b": pool("b", memory="80Gi")}
    member = world.add(
        "p", {"pools": pools, "scaling": {"budget": 8, "profile": inline}}, steady(0.6)
    )
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
    assert world.asked(member)[Place("dit", "a")] == 0
    assert world.asked(member)[Place("dit", "b")] >= 4


async def test_a_pool_is_used_up_to_its_capacity() -> None:
    world, member = started(3.0)
    world.change(member, {**spec(budget=None), "pools": {"a": pool("a", capacity=5)}})
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 90))[member.key]
    assert sum(counts(member, world).values()) == 5
    assert report.usable == {"a": 5}


async def test_replicas_of_several_accelerators_each_count_as_many() -> None:
    world, member = started(3.0)
    world.change(member, {**spec(), "pools": {"a": pool("a", accelerators=2)}})
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
    assert sum(counts(member, world).values()) == 4
    assert world.held() == 8


@pytest.mark.parametrize(
    ("where", "scaling_spec", "most"),
    [({}, {}, 3), ({"capacity": 6}, {}, 6), ({}, {"budget": 5}, 5)],
)
async def test_on_the_processor_there_is_room_for_minima_capacity_or_budget(
    where: dict[str, Any], scaling_spec: dict[str, Any], most: int
) -> None:
    world = World()
    world.add_nodes("a", 1, 8, resource="cpu")
    member = world.add(
        "p",
        {
            "pools": {"a": {"nodeSelector": {"pool": "a"}, **where}},
            "scaling": {"profile": PROFILE, **scaling_spec},
        },
        steady(3.0),
    )
    async with world.scaling() as scaling:
        await world.run(scaling, 90)
    assert sum(counts(member, world).values()) == most


async def test_emulated_accelerators_that_are_quick_are_known_to_be() -> None:
    world, member = started(0.0, budget=None)
    emulated = {"emulated": {"timeScale": 0.1}}
    world.change(member, {**spec(budget=None, periodSeconds=2), "model": emulated})
    member.speeds = {place: 10.0 * speed for place, speed in member.speeds.items()}
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        member.jobs.rate = steady(6.0)
        await world.run(scaling, 60)
        # Four replicas do 6.7 jobs a second.
        assert 4 <= counts(member, world)["dit"] <= 6
        watched = scaling._load
        assert isinstance(watched, Known)
        assert watched.watched[member.key][1] == "emulated-p"


async def test_another_time_scale_is_another_clock() -> None:
    world, member = started(0.5)
    async with world.scaling() as scaling:
        await world.run(scaling, 30)
        emulated = {"emulated": {"timeScale": 0.5}}
        world.change(member, {**spec(), "model": emulated})
        report = (await world.run(scaling, 30))[member.key]
        assert scaling._scalers[member.key].mind.scale == 0.5
    assert finding(report, Condition.SCALING_ACTIVE).holds
    assert counts(member, world)["dit"] == 6


async def test_prometheus_is_asked_as_it_is_said() -> None:
    world = World()
    world.add_nodes("a", 1, 8)
    asked = {
        "url": "http://other.test/prometheus/",
        "matchers": ['cluster="prod"'],
        "windowSeconds": 120,
    }
    member = world.add("p", spec(prometheus=asked, periodSeconds=7))
    load = Known(world)
    async with Scaling(world, load=load, gateways=Told(world)) as scaling:
        await world.run(scaling, 3)
        source, name = load.watched[member.key]
        assert source.url == "http://other.test/prometheus"
        assert source.matchers == ('cluster="prod"',)
        assert (source.window, source.period, source.scope.stale) == (120.0, 7.0, 60.0)
        assert name == "p"
        world.change(member, spec(mode="Off"))
        await world.run(scaling, 3)
        assert load.watched == {}


async def test_without_any_prometheus_that_is_said() -> None:
    world, member = started()
    import dataclasses

    async with world.scaling() as scaling:
        for _ in range(40):
            world.tick()
            view = dataclasses.replace(world.view(member), prometheus_url="")
            report = await scaling.step(view, world.cluster_view(), world.now)
    missing = finding(report, Condition.METRICS_AVAILABLE)
    assert missing.holds is False
    assert "no Prometheus is given" in missing.message


def test_what_fits_models_is_not_in_the_operators_process() -> None:
    code = (
        "import sys, disagfusion_operator.scaling.controller;"
        "print([name for name in ('sklearn', 'scipy', 'torch', 'highspy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


async def test_where_nodes_may_not_be_seen_the_budget_says_what_there_is() -> None:
    world, member = started(0.9, accelerators=6)
    import dataclasses

    async with world.scaling() as scaling:
        seen = []
        for _ in range(150):
            world.tick()
            cluster = dataclasses.replace(world.cluster_view(), nodes=())
            report = await scaling.step(world.view(member), cluster, world.now)
            seen += [one.reason for one in report.happenings]
            if len(seen) == 0:
                assert sum(counts(member, world).values()) in (0, 8)
    # What the nodes do not have is learned.
    assert "PoolFull" in seen
    assert sum(counts(member, world).values()) == 6
