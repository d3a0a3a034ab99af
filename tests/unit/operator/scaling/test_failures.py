"""What the balancer does where something fails, is missing, or has no room."""

from __future__ import annotations

import json
from typing import Any

import pytest
from disagfusion_operator.api.status import Condition
from disagfusion_operator.scaling.report import Report

from disagfusion.errors import DisagfusionError, PermissionDeniedError, UnavailableError
from disagfusion.scheduling.decision import Place

from .members import BEGIN, Member, Pod, pool, profile
from .pipelines import finding, happenings, shifted, spec, started, steady
from .world import World, counts


class Most:
    """Watches how much is held at most."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.held = 0

    def __call__(self, member: Member, report: Report) -> None:
        self.held = max(self.held, self.world.held())


async def test_it_goes_on_wherever_its_operator_was_killed() -> None:
    """Killed before its first call, then after that and before the next, and so on."""
    world, member = shifted()
    async with world.scaling() as scaling:
        await world.run(scaling, 120)
    whole, wanted = len(world.calls), counts(member, world)
    assert whole >= 4

    for survived in range(whole):
        world, member = shifted()
        most = Most(world)

        async with world.scaling() as scaling:
            with world.killed_after(survived):
                await world.run(scaling, 120, most)
        async with world.scaling() as scaling:
            await world.run(scaling, 60, most)
        assert most.held <= 8
        assert counts(member, world) == wanted
        kept = json.loads(member.annotations["disagfusion.dev/replicas"])["desired"]
        assert {stage: sum(pools.values()) for stage, pools in kept.items()} == wanted


async def test_an_api_server_that_is_away_is_told_and_asked_again() -> None:
    world, member = shifted()

    def away(call: tuple[Any, ...]) -> None:
        if world.now < BEGIN + 80:
            raise UnavailableError("the API server is away")

    world.failing = away
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 30))[member.key]
        active = finding(report, Condition.SCALING_ACTIVE)
        assert (active.holds, active.reason) == (False, "CannotScale")
        assert "away" in active.message
        report = (await world.run(scaling, 120))[member.key]
    assert finding(report, Condition.SCALING_ACTIVE).holds
    assert counts(member, world)["decoder"] >= 4
    assert world.held() <= 8


@pytest.mark.parametrize("error", [PermissionDeniedError, UnavailableError])
@pytest.mark.parametrize("mode", ["Auto", "Off"])
async def test_where_no_label_may_be_written_it_scales_all_the_same(
    mode: str, error: type[DisagfusionError]
) -> None:
    world = World()
    world.add_nodes("a", 1, 8)
    world.add_nodes("b", 1, 8)
    given = {
        "pools": {"a": {**pool("a"), "flex": {}}, "b": pool("b")},
        "stages": {
            "encoder": {"pools": ["a"], "minReplicas": 2},
            "dit": {"pools": ["a"]},
            "decoder": {"pools": ["b"]},
        },
        "scaling": {
            "mode": mode,
            "objective": "Cost",
            "profile": profile("ab", encoder=1, dit=1, decoder=1),
        },
    }
    member = world.add("p", given, steady(0.1))

    def refuse(call: tuple[Any, ...]) -> None:
        if call[0] == "relabel":
            raise error("a policy refuses it")

    world.failing = refuse
    flex = member.deployments[Place("dit", "a")]
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 60))[member.key]
        assert world.ready(member)[Place("decoder", "b")] >= 1
        begun = flex["spec"]["replicas"]
        assert begun >= 3
        world.change(member, {**given, "stages": {**given["stages"], "decoder": {
            "pools": ["b"], "minReplicas": 4,
        }}})  # fmt: skip
        pods = {name for name, one in world.pods.items() if one.crew == "flex"}
        report = (await world.run(scaling, 60))[member.key]
        assert world.ready(member)[Place("decoder", "b")] >= 4
        # Those that should be something else do not end, to come back as what they were.
        assert {name for name, one in world.pods.items() if one.crew == "flex"} == pods
        active = finding(report, Condition.SCALING_ACTIVE)
        if mode == "Auto":
            assert (active.reason, active.message) == ("CannotScale", "a policy refuses it")
        world.failing = lambda call: None
        await world.run(scaling, 60)
    assert world.ready(member)[Place("encoder", "a")] >= 2
    assert {name for name, one in world.pods.items() if one.crew == "flex"} == pods


async def test_without_prometheus_nothing_changes_and_that_is_said() -> None:
    world, member = started()
    async with world.scaling() as scaling:
        await world.run(scaling, 30)
        world.prometheus = False
        member.jobs.rate = steady(5.0)
        world.calls.clear()
        report = (await world.run(scaling, 120))[member.key]
        assert not [call for call in world.calls if call[0] == "scale"]
        missing = finding(report, Condition.METRICS_AVAILABLE)
        assert (missing.holds, missing.reason) == (False, "MetricsMissing")
        assert "Prometheus is away" in missing.message
        assert finding(report, Condition.SCALING_ACTIVE).holds is False
        world.prometheus = True
        report = (await world.run(scaling, 30))[member.key]
    assert finding(report, Condition.METRICS_AVAILABLE).holds
    assert finding(report, Condition.SCALING_ACTIVE).holds


async def test_minima_need_no_prometheus() -> None:
    world, member = started(0.0, budget=None)
    world.prometheus = False
    async with world.scaling() as scaling:
        await world.run(scaling, 10)
        assert counts(member, world) == {"encoder": 1, "dit": 1, "decoder": 1}
        world.change(member, {**spec(budget=None), "stages": {"dit": {"minReplicas": 3}}})
        await world.run(scaling, 30)
    assert counts(member, world)["dit"] == 3


async def test_a_pod_that_finds_no_node_is_taken_back_and_its_pool_counts_as_full() -> None:
    world, member = started(0.9, accelerators=5)
    # People say that nodes come when pods wait; none does.
    slow = {"provisioning": "Autoscaled", "provisioningTimeoutSeconds": 90, "capacity": 8}
    world.change(member, {**spec(), "pools": {"a": pool("a", **slow)}})
    seen = []
    async with world.scaling() as scaling:
        await world.run(scaling, 60, lambda _, report: seen.extend(happenings(report)))
        assert world.held() == 8
        assert "PoolFull" not in seen
        report = (await world.run(scaling, 60, lambda _, one: seen.extend(happenings(one))))[
            member.key
        ]
        assert "PoolFull" in seen
        assert world.held() == 5
        limited = finding(report, Condition.SCALING_LIMITED)
        assert (limited.holds, limited.reason) == (True, "PoolFull")
        found = counts(member, world)
        assert sum(found.values()) == 5
        assert min(found.values()) >= 1
        # With another node there is room again.
        world.add_nodes("a", 1, 3)
        await world.run(scaling, 90)
        assert sum(counts(member, world).values()) > 5


async def test_a_static_pool_is_not_asked_for_more_than_its_nodes_have() -> None:
    world, member = started(accelerators=5)
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 60))[member.key]
    assert sum(counts(member, world).values()) == 5
    assert report.settled
    assert report.usable == {"a": 5}


async def test_a_quota_that_lets_no_pod_appear_is_recognised() -> None:
    world, member = started()
    world.quota["default"] = 5
    seen = []
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 120, lambda _, one: seen.extend(happenings(one))))[
            member.key
        ]
    assert "QuotaRefused" in seen
    found = counts(member, world)
    assert sum(found.values()) == 5
    assert min(found.values()) >= 1
    limited = finding(report, Condition.SCALING_LIMITED)
    assert "exceeded quota" in limited.message


async def test_what_a_quota_took_back_is_not_asked_for_again_before_pools_are_divided() -> None:
    world, member = started()
    world.prometheus = False
    world.quota["default"] = 5
    seen, asked = [], []

    def watch(_: Member, one: Report) -> None:
        seen.extend(happenings(one))
        if "QuotaRefused" in seen:
            asked.append(sum(counts(member, world).values()))

    async with world.scaling() as scaling:
        await world.run(scaling, 120, watch, pace=0.25)
    assert (max(asked), asked[-1]) == (5, 5)
    assert seen == ["QuotaRefused", "QuotaRefused", "Bounded"]


async def test_a_profile_that_does_not_fit_is_named_and_minima_are_kept() -> None:
    world, member = started(profile=profile("a", encoder=1.0, dit=6.0))
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 20))[member.key]
        active = finding(report, Condition.SCALING_ACTIVE)
        assert (active.holds, active.reason) == (False, "InvalidProfile")
        assert "decoder is missing" in active.message
        assert counts(member, world) == {"encoder": 1, "dit": 1, "decoder": 1}
        world.change(member, spec())
        report = (await world.run(scaling, 60))[member.key]
    assert finding(report, Condition.SCALING_ACTIVE).holds


async def test_a_node_that_is_cordoned_takes_no_more_and_loses_nothing() -> None:
    world, member = started(nodes=2, accelerators=4)
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        before = counts(member, world)
        world.cordon("a-0")
        report = (await world.run(scaling, 60))[member.key]
    assert counts(member, world) == before
    assert report.settled


async def test_pools_are_divided_only_when_all_pipelines_were_seen() -> None:
    world, member = started(0.0)
    other = world.add("q", spec(budget=3), steady(0.0))
    async with world.scaling() as scaling:
        world.tick()
        report = await world.step(scaling, member)
        assert not report.places
        assert report.again_after == 1.0
        assert world.calls == []
        await world.step(scaling, other)
        await world.run(scaling, 20)
        assert min(counts(member, world).values()) == 1
    # One that cannot be seen holds up the others for a while only.
    world, member = started(0.0)
    world.add("broken", spec())
    async with world.scaling() as scaling:
        await world.run(scaling, 20, members=[member])
        assert world.calls == []
        await world.run(scaling, 20, members=[member])
    assert sum(counts(member, world).values()) == 8


@pytest.mark.parametrize("died", [True, False])
async def test_pods_that_never_end_keep_nobody_from_finding_out_that_a_pool_is_full(
    died: bool,
) -> None:
    """Their node has died, which takes no others; or something else keeps them for ever."""
    world, member = started(0.9, nodes=2, accelerators=4)
    seen = []
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        assert world.held() == 8
        if died:
            world.lose("a-1", 3600.0)
        else:
            world.strand([pod for pod in world.pods.values() if pod.node == "a-1"], 5.0)
        reports = await world.run(scaling, 120, lambda _, one: seen.extend(happenings(one)))
        limited = finding(reports[member.key], Condition.SCALING_LIMITED)
        assert (limited.holds, limited.reason) == (True, "PoolFull")
    assert "PoolFull" in seen
    assert sum(counts(member, world).values()) == 4
    assert min(counts(member, world).values()) >= 1


async def test_a_pod_that_never_ends_keeps_no_stage_from_moving() -> None:
    """Each of two stages waits for the other's room; what does not end is not under way."""
    world = World()
    for name in "ab":
        world.add_nodes(name, 1, 1)
    world.add_nodes("c", 1, 2)
    fast = {"a": 1.0, "b": 1.0, "c": 1.0}
    pools = {name: pool(name) for name in "abc"}
    stages = {"encoder": {"pools": ["a", "b"]}, "dit": {"pools": ["a", "b"]}}
    member = world.add(
        "p",
        {
            "pools": pools,
            "stages": {**stages, "decoder": {"pools": ["c"]}},
            "scaling": {"profile": profile("abc", encoder=fast, dit=fast, decoder=fast)},
        },
        steady(0.1),
    )
    for place in (Place("encoder", "a"), Place("dit", "b"), Place("decoder", "c")):
        member.deployments[place]["spec"]["replicas"] = 1
    for _ in range(2):
        world.tick(10.0)
    world.pods["stuck"] = Pod("stuck", member.key, Place("decoder", "c"), world.now, node="c-2")
    world.strand([world.pods["stuck"]], 5.0)
    other = {"encoder": {"b": 1}, "dit": {"a": 1}, "decoder": {"c": 1}}
    member.annotations["disagfusion.dev/replicas"] = json.dumps({"desired": other, "begun": ""})
    async with world.scaling() as scaling:
        await world.run(scaling, 90)
    assert world.ready(member)[Place("encoder", "b")] == 1
    assert world.ready(member)[Place("dit", "a")] == 1
