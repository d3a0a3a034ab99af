"""A pipeline in a cluster that moves on with time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from disagfusion_operator.api.status import Condition
from disagfusion_operator.scaling.report import Finding, Report

from disagfusion.scheduling.decision import Place

from .world import BEGIN, Member, World, counts, pool, profile

PROFILE = profile("a", encoder=1.0, dit=6.0, decoder=1.0)
DIT = Place("dit", "a")


def spec(**scaling: Any) -> dict[str, Any]:
    return {"pools": {"a": pool("a")}, "scaling": {"budget": 8, "profile": PROFILE, **scaling}}


def steady(rate: float) -> Callable[[float], float]:
    return lambda now: rate


def started(
    rate: float = 0.5, nodes: int = 1, accelerators: int = 8, **scaling: Any
) -> tuple[World, Member]:
    world = World()
    world.add_nodes("a", nodes, accelerators)
    return world, world.add("p", spec(**scaling), steady(rate))


def finding(report: Report, kind: Condition) -> Finding:
    return next(one for one in report.findings if one.type is kind)


def happenings(report: Report) -> list[str]:
    return [one.reason for one in report.happenings]


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


def shifted() -> tuple[World, Member]:
    """A pipeline whose jobs have become heavy for the decoder: some of the others have to move."""
    world, member = started(0.0)
    heavy = profile("a", encoder=1.0, dit=2.0, decoder=6.0)
    member.deployments[Place("encoder", "a")]["spec"]["replicas"] = 1
    member.deployments[DIT]["spec"]["replicas"] = 6
    member.deployments[Place("decoder", "a")]["spec"]["replicas"] = 1
    world.change(member, spec(profile=heavy))
    member.speeds = {
        Place(stage, "a"): 1.0 / seconds
        for stage, seconds in (("encoder", 1.0), ("dit", 2.0), ("decoder", 6.0))
    }
    world.tick(20.0)
    member.jobs.rate = steady(0.7)
    return world, member


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

    class KilledError(BaseException):
        pass

    for survived in range(whole):
        world, member = shifted()
        most = Most(world)

        def fail(call: tuple[Any, ...], left: list[int] = [survived]) -> None:  # noqa: B006 -- counts
            left[0] -= 1
            if left[0] < 0:
                raise KilledError

        world.failing = fail
        async with world.scaling() as scaling:
            with pytest.raises(KilledError):
                await world.run(scaling, 120, most)
        world.failing = lambda call: None
        async with world.scaling() as scaling:
            await world.run(scaling, 60, most)
        assert most.held <= 8
        assert counts(member, world) == wanted
        kept = json.loads(member.annotations["disagfusion.dev/replicas"])["desired"]
        assert {stage: sum(pools.values()) for stage, pools in kept.items()} == wanted


async def test_an_api_server_that_is_away_is_told_and_asked_again() -> None:
    from disagfusion.errors import UnavailableError

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


async def test_recommend_says_and_does_nothing() -> None:
    world, member = shifted()
    world.change(
        member, spec(profile=profile("a", encoder=1.0, dit=2.0, decoder=6.0), mode="Recommend")
    )
    before = counts(member, world)
    seen = []
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 60, lambda _, one: seen.extend(one.happenings)))[
            member.key
        ]
    assert counts(member, world) == before
    assert not [call for call in world.calls if call[0] == "scale"]
    # Advice that nobody follows is told once.
    assert len(seen) == len({one.message.partition(";")[0] for one in seen})
    assert {one.action for one in seen} == {"Recommend"}
    assert report.choice is not None
    assert report.choice.time < world.now - 10
    assert any("decoder" in one.message for one in seen)
    active = finding(report, Condition.SCALING_ACTIVE)
    assert (active.holds, active.reason) == (False, "Recommend")


async def test_off_keeps_minima_and_lets_everybody_scale() -> None:
    world, member = started(5.0, mode="Off")
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        assert counts(member, world) == {"encoder": 1, "dit": 1, "decoder": 1}
        world.scale_by_hand(member, DIT, 4, "kubectl")
        report = (await world.run(scaling, 60))[member.key]
        assert counts(member, world)["dit"] == 4
        assert not report.happenings
        world.scale_by_hand(member, DIT, 0, "kubectl")
        await world.run(scaling, 5)
        assert counts(member, world)["dit"] == 1
    assert finding(report, Condition.SCALING_ACTIVE).reason == "Off"


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


async def test_a_pause_keeps_everything_as_it_is() -> None:
    world, member = shifted()
    heavy = profile("a", encoder=1.0, dit=2.0, decoder=6.0)
    world.change(member, spec(profile=heavy, paused=True))
    before = counts(member, world)
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 60))[member.key]
        assert counts(member, world) == before
        assert world.calls == []
        assert finding(report, Condition.SCALING_ACTIVE).reason == "Paused"
        world.change(member, spec(profile=heavy))
        await world.run(scaling, 60)
    assert counts(member, world) != before


async def test_while_it_is_held_nothing_is_decided_but_what_was_begun_goes_on() -> None:
    world, member = shifted()
    member.hold = "a rollout is under way"
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 60))[member.key]
        assert counts(member, world)["decoder"] == 1
        assert report.choice is not None
        assert report.choice.message == "a rollout is under way"
        member.hold = ""
        await world.run(scaling, 60)
    assert counts(member, world)["decoder"] >= 4


async def test_a_change_by_hand_is_put_right() -> None:
    world, member = started()
    seen = []
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        world.scale_by_hand(member, DIT, 2, "kubectl")
        report = (await world.run(scaling, 30, lambda _, one: seen.extend(one.happenings)))[
            member.key
        ]
    assert counts(member, world)["dit"] == 6
    assert [one.reason for one in seen] == ["ReplicasChanged"]
    assert "kubectl asked for 2" in seen[0].message
    assert finding(report, Condition.CONFLICT).holds is False


def autoscaler(deployment: str) -> dict[str, Any]:
    return {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "other"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": deployment}},
    }


async def test_another_autoscaler_is_left_alone_and_the_rest_goes_on() -> None:
    world, member = shifted()
    async with world.scaling() as scaling:
        world.autoscalers = [autoscaler("p-encoder-a")]
        world.scale_by_hand(member, Place("encoder", "a"), 2, "kube-controller-manager")
        report = (await world.run(scaling, 120))[member.key]
        conflict = finding(report, Condition.CONFLICT)
        assert (conflict.holds, conflict.reason) == (True, "OtherAutoscaler")
        assert "encoder on a: HorizontalPodAutoscaler other" in conflict.message
        assert report.places[Place("encoder", "a")].desired == 2
        assert not [call for call in world.calls if call[1] == "p-encoder-a"]
        found = counts(member, world)
        assert found["encoder"] == 2
        assert found["decoder"] >= 4
        # What the other one takes counts.
        assert sum(found.values()) <= 8
        world.autoscalers = []
        report = (await world.run(scaling, 10))[member.key]
    assert finding(report, Condition.CONFLICT).holds is False


async def test_the_other_pools_of_a_stage_are_still_balanced() -> None:
    world = World()
    world.add_nodes("a", 1, 4)
    world.add_nodes("b", 1, 4)
    both = profile("ab", encoder=1.0, dit=6.0, decoder=1.0)
    pools = {"a": pool("a"), "b": pool("b")}
    member = world.add("p", {"pools": pools, "scaling": {"profile": both}}, steady(0.0))
    world.autoscalers = [autoscaler("p-dit-a")]
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        world.scale_by_hand(member, DIT, 1, "kube-controller-manager")
        member.jobs.rate = steady(0.6)
        await world.run(scaling, 120)
    asked = world.asked(member)
    assert asked[DIT] == 1
    assert asked[Place("dit", "b")] >= 2
    assert world.held("b") <= 4


async def test_a_smaller_budget_and_maxima_are_gone_to_by_draining() -> None:
    world, member = started()
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        world.change(member, spec(budget=5))
        report = await world.step(scaling, member)
        assert "Bounded" in happenings(report)
        await world.run(scaling, 20)
        assert world.held() == 5
        world.change(member, {**spec(budget=5), "stages": {"dit": {"maxReplicas": 2}}})
        await world.run(scaling, 20)
    assert counts(member, world)["dit"] == 2


async def test_a_place_that_is_taken_away_counts_until_its_replicas_are_gone() -> None:
    world = World()
    world.add_nodes("a", 1, 4)
    world.add_nodes("b", 1, 4)
    both = profile("ab", encoder=1.0, dit=6.0, decoder=1.0)
    pools = {"a": pool("a"), "b": pool("b")}
    whole = {"pools": pools, "scaling": {"budget": 8, "profile": both}}
    member = world.add("p", whole, steady(0.6))
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        assert world.held("b") == 4
        world.change(member, {**whole, "pools": {"a": pool("a")}})
        gone = {place: one for place, one in member.deployments.items() if place.pool == "b"}
        for place in gone:
            del member.deployments[place]  # whoever takes them away scales them down
        most = 0
        for _ in range(30):
            world.tick()
            await world.step(scaling, member)
            most = max(most, world.held())
    assert most <= 8


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


async def test_another_pipeline_of_the_same_name_begins_anew() -> None:
    world, member = started()
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        world.pods.clear()
        again = world.add("p", spec(budget=3))
        await world.run(scaling, 20)
        assert counts(again, world) == {"encoder": 1, "dit": 1, "decoder": 1}
        assert again.uid != member.uid


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


def test_reports_are_values() -> None:
    assert Report({}) == Report({})
    assert isinstance(Report({}).usable, Mapping)
