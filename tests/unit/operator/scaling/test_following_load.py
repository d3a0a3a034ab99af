"""How a pipeline begins, follows its load and sleeps, and what is reported and told of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from disagfusion_operator.api.status import Condition
from disagfusion_operator.scaling.report import Report

from disagfusion.scheduling.decision import Place

from .members import BEGIN, Member
from .pipelines import DIT, finding, shifted, spec, started, steady
from .world import World, counts


async def test_a_pipeline_with_a_budget_begins_with_the_exact_plan_for_it() -> None:
    world, member = started()
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 15))[member.key]
    assert counts(member, world) == {"encoder": 1, "dit": 6, "decoder": 1}
    assert report.settled
    assert report.places[DIT].ready == 6


async def test_one_without_a_budget_begins_with_its_minima_and_grows_with_its_load() -> None:
    world, member = started(0.0, budget=None)
    async with world.scaling() as scaling:
        await world.run(scaling, 30)
        assert counts(member, world) == {"encoder": 1, "dit": 1, "decoder": 1}
        member.jobs.rate = steady(0.6)
        await world.run(scaling, 60)
    assert counts(member, world)["dit"] >= 4


async def test_at_rest_nothing_is_asked_of_the_api_server() -> None:
    world, member = started()
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        world.calls.clear()
        report = (await world.run(scaling, 300))[member.key]
    assert world.calls == []
    assert report.settled
    assert not report.happenings
    assert report.again_after <= 10.0


async def test_the_report_says_what_limits_and_what_is_done() -> None:
    world, member = started(0.9)
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 90))[member.key]
    # Six replicas do one job a second; the encoder and the decoder as well.
    assert report.bottleneck in ("encoder", "dit", "decoder")
    assert report.throughput is not None
    assert abs(report.throughput - 0.9) < 0.05
    assert report.backlog is not None
    assert report.budget == 8
    assert report.usable == {"a": 8}
    assert finding(report, Condition.SCALING_ACTIVE).holds
    assert finding(report, Condition.METRICS_AVAILABLE).holds
    assert finding(report, Condition.SCALING_LIMITED).holds is False
    assert finding(report, Condition.CONFLICT).holds is False
    assert report.choice is not None
    assert report.choice.reason


async def test_replicas_follow_the_load_within_the_budget_terminating_ones_counted() -> None:
    world, member = shifted()
    most = 0

    def watch(_: Member, report: Report) -> None:
        nonlocal most
        most = max(most, world.held())

    async with world.scaling() as scaling:
        await world.run(scaling, 120, watch)
    found = counts(member, world)
    assert found["decoder"] >= 4
    assert found["dit"] <= 3
    assert most == 8


async def test_all_stages_leave_and_return_together() -> None:
    world, member = started(0.0, scaleToZero={"afterSeconds": 60})
    async with world.scaling() as scaling:
        await world.run(scaling, 40)
        assert counts(member, world)["dit"] == 6
        await world.run(scaling, 60)
        assert counts(member, world) == {"encoder": 0, "dit": 0, "decoder": 0}
        assert world.held() == 0
    # An operator that comes later lets it sleep.
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 60))[member.key]
        assert world.held() == 0
        assert finding(report, Condition.SCALING_LIMITED).holds is False
        member.jobs.rate = steady(0.5)
        await world.run(scaling, 20)
        assert counts(member, world) == {"encoder": 1, "dit": 6, "decoder": 1}


def resting(**scaling: object) -> dict[str, Any]:
    """Return a pipeline that may have no replica at all."""
    found = spec(scaleToZero={"afterSeconds": 60}, **scaling)
    return {
        **found,
        "stages": {stage: {"minReplicas": 0} for stage in ("encoder", "dit", "decoder")},
    }


@pytest.mark.parametrize("accelerators", [True, False])
async def test_one_that_may_sleep_shows_itself_first(accelerators: bool) -> None:
    world = World()
    world.add_nodes("a", 2, 4)
    found = resting(budget=None)
    if not accelerators:
        found["pools"] = {"a": {}}
    member = world.add("p", found, steady(0.0))
    async with world.scaling() as scaling:
        await world.run(scaling, 40)
        # Without a worker nobody would know what jobs it accepts.
        assert counts(member, world) == {"encoder": 1, "dit": 1, "decoder": 1}
        await world.run(scaling, 60)
        assert counts(member, world) == {"encoder": 0, "dit": 0, "decoder": 0}
        await world.run(scaling, 60)
        assert world.held() == 0
        member.jobs.rate = steady(0.5)
        await world.run(scaling, 30)
    assert min(counts(member, world).values()) >= 1


async def test_a_new_version_shows_itself_although_there_is_no_work() -> None:
    world = World()
    world.add_nodes("a", 2, 4)
    member = world.add("p", resting(budget=None), steady(0.0))

    def version(name: str) -> None:
        metadata = {"annotations": {"disagfusion.dev/version": name}}
        for deployment in member.deployments.values():
            deployment["spec"]["template"] = {"metadata": metadata}

    version("one")
    async with world.scaling() as scaling:
        await world.run(scaling, 120)
        assert world.held() == 0
        version("two")
        await world.run(scaling, 20)
        assert counts(member, world) == {"encoder": 1, "dit": 1, "decoder": 1}
        await world.run(scaling, 100)
        assert world.held() == 0
    # One that comes later knows that it was there.
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        assert world.held() == 0


@pytest.mark.parametrize("prometheus", [False, True])
async def test_what_may_sleep_takes_no_place_again_and_again(prometheus: bool) -> None:
    world, busy = started(5.0, budget=None)
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        found = resting(budget=None)
        found["scaling"]["scaleToZero"] = {"afterSeconds": 900}
        member = world.add("q", found, steady(0.0))
        changes: list[dict[str, int]] = []

        def watch(one: Member, _: Report) -> None:
            if one is member and (not changes or changes[-1] != counts(one, world)):
                changes.append(counts(one, world))

        world.prometheus = prometheus
        await world.run(scaling, 200, watch)
    assert {"encoder": 1, "dit": 1, "decoder": 1} in changes
    assert len(changes) <= 8
    assert sum(counts(busy, world).values()) >= 5


async def test_a_paused_pipeline_without_room_says_so_once() -> None:
    world = World()
    world.add_nodes("a", 1, 8)
    member = world.add("p", spec(), steady(0.0))
    happened: list[str] = []
    async with world.scaling() as scaling:
        await world.run(scaling, 3)
        world.nodes.clear()
        world.add_nodes("another", 1, 4)
        for pod in world.pods.values():
            pod.node, pod.ready_at, pod.unschedulable = "", None, True
        world.change(member, spec(paused=True))
        await world.run(
            scaling,
            300,
            lambda _, report: happened.extend(one.reason for one in report.happenings),
        )
    assert happened.count("PoolFull") <= 6


@pytest.mark.parametrize("restart", [False, True])
async def test_a_pipeline_begins_when_there_is_room(restart: bool) -> None:
    world = World()
    world.add_nodes("another", 1, 4)
    member = world.add("p", spec(), steady(0.0))
    scaling = world.scaling()
    async with scaling:
        await world.run(scaling, 40)
        assert world.held() == 0
        world.add_nodes("a", 2, 4)
        if not restart:
            await world.run(scaling, 30)
    if restart:
        async with world.scaling() as scaling:
            await world.run(scaling, 45)
    assert counts(member, world) == {"encoder": 1, "dit": 6, "decoder": 1}


async def test_what_sleeps_leaves_its_pool_to_others() -> None:
    world, member = started(0.0, scaleToZero={"afterSeconds": 30})
    other = world.add("q", spec(budget=None), steady(0.0))
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        other.jobs.rate = steady(2.0)
        await world.run(scaling, 90)
        assert counts(member, world) == {"encoder": 0, "dit": 0, "decoder": 0}
        assert sum(counts(other, world).values()) == 8
        # It gets its share back when it wakes up.
        member.jobs.rate = steady(0.5)
        await world.run(scaling, 90)
    assert min(counts(member, world).values()) >= 1
    assert world.held() <= 8


async def test_gateways_are_told_what_was_decided_and_why() -> None:
    world, member = shifted()
    async with world.scaling() as scaling:
        await world.run(scaling, 90)
    reasons = [one.reason for _, one in world.told]
    assert {address for address, _ in world.told} == {"default/p"}
    assert "REBALANCE" in reasons
    changes = [one for _, one in world.told if one.moves]
    assert changes[0].moves[0].to_stage == "decoder"
    assert changes[0].balancer == "hybrid"
    # What says the same as before is not told again.
    assert all(
        a.moves or b.moves or a.reason != b.reason for (_, a), (_, b) in pairwise(world.told)
    )
    world, member = shifted()
    world.deaf = {"default/p"}
    async with world.scaling() as scaling:
        await world.run(scaling, 90)
    assert counts(member, world)["decoder"] >= 4


async def test_nobody_looks_more_often_than_needed() -> None:
    for scaling_spec in ({}, {"mode": "Off"}, {"profile": None}, {"paused": True}):
        world, member = started(0.0, **scaling_spec)
        async with world.scaling() as scaling:
            await world.run(scaling, 60)
            asked = 0
            until = world.now
            while world.now < BEGIN + 360:
                while world.now < until:
                    world.tick()
                report = await world.step(scaling, member)
                until, asked = world.now + report.again_after, asked + 1
        assert asked <= 32


async def test_a_schedule_is_kept() -> None:
    at = (int(BEGIN) // 60) % 1440
    begin, end = (f"{(at + more) // 60 % 24:02}:{(at + more) % 60:02}" for more in (2, 4))
    schedule = [{"begin": begin, "end": end, "minReplicas": {"dit": 4}}]
    world, member = started(0.0, budget=None, schedule=schedule)
    async with world.scaling() as scaling:
        await world.run(scaling, 90)
        assert counts(member, world)["dit"] == 1
        await world.run(scaling, 90)
        assert counts(member, world)["dit"] == 4


async def test_cost_keeps_what_the_load_needs() -> None:
    quick = {"scaleDown": {"stabilizationWindowSeconds": 30}}
    world, member = started(0.6, objective="Cost", behavior=quick, headroom="0.1")
    async with world.scaling() as scaling:
        await world.run(scaling, 120)
        assert counts(member, world)["dit"] in (4, 5)
        member.jobs.rate = steady(0.1)
        await world.run(scaling, 400)
    assert counts(member, world)["dit"] == 1


async def test_behavior_bounds_how_fast_it_grows() -> None:
    one_a_minute = {"type": "Pods", "value": 1, "periodSeconds": 60}
    slow = {"scaleUp": {"policies": [one_a_minute]}}
    world, member = started(0.0, objective="Cost", behavior=slow)
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        before = counts(member, world)["dit"]
        member.jobs.rate = steady(0.8)
        await world.run(scaling, 75)
    assert before + 1 <= counts(member, world)["dit"] <= before + 2


async def test_a_pipeline_without_a_profile_learns_one_from_its_first_jobs() -> None:
    from disagfusion.v1 import fleet_pb2

    world, member = started(0.5, profile=None)
    member.speeds = {
        Place(stage, "a"): 1.0 / seconds
        for stage, seconds in (("encoder", 1.0), ("dit", 6.0), ("decoder", 1.0))
    }
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 60))[member.key]
        active = finding(report, Condition.SCALING_ACTIVE)
        assert (active.holds, active.reason) == (None, "Learning")
        assert counts(member, world) == {"encoder": 1, "dit": 1, "decoder": 1}
        answer = fleet_pb2.GetFleetResponse(incarnation="one", samples_cursor=12)
        for stage, seconds in ((1, 1.0), (2, 6.0), (3, 1.0)):
            for number in range(4):
                sample = answer.samples.add(
                    stage=stage, pool="a", compute_seconds=seconds, worker=f"w{number}"
                )
                for field in fleet_pb2.JobShape.DESCRIPTOR.fields:
                    setattr(sample.shape, field.name, 1)
        world.fleets[str(member.key)] = answer
        report = (await world.run(scaling, 90))[member.key]
    assert finding(report, Condition.SCALING_ACTIVE).holds
    assert counts(member, world)["dit"] >= 3


def test_reports_are_values() -> None:
    assert Report({}) == Report({})
    assert isinstance(Report({}).usable, Mapping)
