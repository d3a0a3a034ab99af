"""What people and other autoscalers do to a pipeline, and what the balancer makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from disagfusion_operator.api.status import Condition

from disagfusion.scheduling.decision import Place

from .members import pool, profile
from .pipelines import DIT, finding, happenings, shifted, spec, started, steady
from .world import World, counts


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


@pytest.mark.parametrize("mode", ["Off", "Recommend"])
async def test_another_autoscaler_is_not_fought_for_minima_either(mode: str) -> None:
    world, member = started(0.0, mode=mode)
    two = {"stages": {"dit": {"minReplicas": 2}}}
    world.change(member, {**spec(mode=mode), **two})
    async with world.scaling() as scaling:
        await world.run(scaling, 10)
        assert counts(member, world)["dit"] == 2
        world.autoscalers = [autoscaler("p-dit-a")]
        world.scale_by_hand(member, DIT, 1, "kube-controller-manager")
        world.calls.clear()
        report = (await world.run(scaling, 60))[member.key]
        assert not [call for call in world.calls if call[0] == "scale"]
        assert report.places[DIT].desired == 1
        conflict = finding(report, Condition.CONFLICT)
        assert (conflict.holds, conflict.reason) == (True, "OtherAutoscaler")
        world.autoscalers = []
        report = (await world.run(scaling, 10))[member.key]
        assert finding(report, Condition.CONFLICT).holds is False
        # Who goes below a minimum again and again is one, too; who goes above is none.
        for number in (3, 4, 5, 6):
            world.scale_by_hand(member, DIT, number, "keda")
            report = (await world.run(scaling, 5))[member.key]
        assert finding(report, Condition.CONFLICT).holds is False
        for _ in range(3):
            world.scale_by_hand(member, DIT, 0, "keda")
            report = (await world.run(scaling, 5))[member.key]
    assert counts(member, world)["dit"] == 0
    assert "dit on a: keda" in finding(report, Condition.CONFLICT).message


async def test_what_others_scale_is_still_recommended() -> None:
    world, member = shifted()
    heavy = profile("a", encoder=1.0, dit=2.0, decoder=6.0)
    world.change(member, spec(profile=heavy, mode="Recommend"))
    world.autoscalers = [autoscaler("p-decoder-a")]
    async with world.scaling() as scaling:
        report = (await world.run(scaling, 60))[member.key]
    assert report.choice is not None
    assert "decoder" in report.choice.message


async def test_another_autoscaler_of_the_gateways_is_told() -> None:
    world, member = started()
    world.autoscalers = [autoscaler("p-gateway")]
    async with world.scaling() as scaling:
        conflict = finding((await world.run(scaling, 5))[member.key], Condition.CONFLICT)
        assert conflict.holds
        assert "is not followed, since SQLite is for one gateway" in conflict.message
        shared = {"store": {"postgresql": {"urlSecret": {"name": "db", "key": "url"}}}}
        world.change(member, {**spec(), "gateway": shared})
        conflict = finding((await world.run(scaling, 5))[member.key], Condition.CONFLICT)
    told = "gateway: HorizontalPodAutoscaler other; left alone by the operator"
    assert (conflict.holds, conflict.message) == (True, told)


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


async def test_another_pipeline_of_the_same_name_begins_anew() -> None:
    world, member = started()
    async with world.scaling() as scaling:
        await world.run(scaling, 20)
        world.pods.clear()
        again = world.add("p", spec(budget=3))
        await world.run(scaling, 20)
        assert counts(again, world) == {"encoder": 1, "dit": 1, "decoder": 1}
        assert again.uid != member.uid
