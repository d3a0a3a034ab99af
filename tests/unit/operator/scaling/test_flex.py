"""Pods that change their stage in place."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from disagfusion_operator.scaling.report import Report

from disagfusion.pipeline.stages import Stage
from disagfusion.scheduling.decision import Place
from disagfusion.stage.numbers import stage_number
from disagfusion.v1 import fleet_pb2

from .members import Member, pool, profile
from .pipelines import steady
from .world import World, counts

ENCODER, DIT, DECODER = (Place(stage, "a") for stage in ("encoder", "dit", "decoder"))
LABEL, MARK = "disagfusion.dev/stage", "disagfusion.dev/stage-changes-from"


def spec(profile: Any, **scaling: Any) -> dict[str, Any]:
    return {
        "pools": {"a": {**pool("a"), "flex": {}}},
        "scaling": {"budget": 8, "profile": profile, **scaling},
    }


LIGHT = profile("a", encoder=1.0, dit=6.0, decoder=1.0)
HEAVY = profile("a", encoder=1.0, dit=2.0, decoder=6.0)


def heavy(world: World, member: Member) -> None:
    """Have jobs become heavy for the decoder."""
    world.change(member, spec(HEAVY))
    member.speeds = {
        Place(stage, "a"): 1.0 / seconds
        for stage, seconds in (("encoder", 1.0), ("dit", 2.0), ("decoder", 6.0))
    }
    member.jobs.rate = steady(0.7)


async def settled(**scaling: Any) -> tuple[World, Member]:
    """A pipeline on a pool whose pods change, which has what its load needs."""
    world = World()
    world.add_nodes("a", 1, 8)
    member = world.add("p", spec(LIGHT, **scaling), steady(0.7))
    async with world.scaling() as scaling_:
        await world.run(scaling_, 120)
    world.calls.clear()
    return world, member


def serving(world: World, member: Member) -> dict[str, int]:
    found = Counter[str]()
    for place, count in world.ready(member).items():
        found[place.stage] += count
    return found


def labelled(world: World) -> Counter[str]:
    return Counter(one.place.stage for one in world.pods.values() if one.leaves_at is None)


def calm(world: World) -> None:
    """Check that every worker serves what its pod's label says, and that nothing goes on."""
    for one in world.pods.values():
        assert one.serves == one.place.stage
        assert MARK not in one.annotations


async def test_it_begins_with_the_plan_although_all_pods_are_made_alike() -> None:
    world, member = await settled()
    assert serving(world, member) == {"encoder": 1, "dit": 6, "decoder": 1}
    assert world.held() == 8
    calm(world)
    (deployment,) = {one["metadata"]["name"]: one for one in member.deployments.values()}.values()
    assert deployment["spec"]["replicas"] == 8


async def test_bounds_that_come_just_after_a_division_change_pods_in_place() -> None:
    world, member = await settled()
    before = set(world.pods)
    bounds = {"dit": {"maxReplicas": 5}, "decoder": {"minReplicas": 2}}
    async with world.scaling() as scaling:
        await world.run(scaling, 10)
        world.change(member, spec(LIGHT, priority=1))
        await world.run(scaling, 0.25, pace=0.25)
        world.change(member, {**spec(LIGHT, priority=1), "stages": bounds})
        await world.run(scaling, 30, pace=0.25)
    assert serving(world, member) == {"encoder": 1, "dit": 5, "decoder": 2}
    assert set(world.pods) == before
    calm(world)


async def test_a_shift_changes_pods_in_place() -> None:
    world, member = await settled()
    before = set(world.pods)
    heavy(world, member)
    most = 0

    def watch(member: Member, report: Report) -> None:
        nonlocal most
        most = max(most, world.held())

    async with world.scaling() as scaling:
        report = (await world.run(scaling, 120, watch))[member.key]
    assert serving(world, member)["decoder"] >= 4
    assert set(world.pods) == before
    assert not [call for call in world.calls if call[0] == "scale"]
    assert most == 8
    calm(world)
    assert report.settled
    assert {place.stage: one.ready for place, one in report.places.items()} == serving(
        world, member
    )


async def test_a_pod_that_changes_counts_as_starting_until_its_worker_serves() -> None:
    world, member = await settled()
    world.change_seconds = 10.0
    heavy(world, member)
    seen: list[tuple[int, int]] = []

    def watch(member: Member, report: Report) -> None:
        marked = [one for one in world.pods.values() if MARK in one.annotations]
        starting = sum(one.starting for one in report.places.values())
        seen.append((len(marked), starting))

    async with world.scaling() as scaling:
        await world.run(scaling, 60, watch)
    assert max(marked for marked, _ in seen) > 0
    # A report tells what the step began with.
    assert [starting for _, starting in seen[1:]] == [marked for marked, _ in seen[:-1]]


async def test_a_worker_that_does_not_change_stays_what_it_is_and_is_told_again() -> None:
    world, member = await settled()
    heavy(world, member)
    world.stubborn = set(world.pods)
    was = {name: one.serves for name, one in world.pods.items()}
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        assert {name: one.serves for name, one in world.pods.items()} == was
        assert any(MARK in one.annotations for one in world.pods.values())
        told = [call for call in world.calls if call[0] == "change"]
        assert len(told) > len(set(told))
        world.stubborn = set()
        await world.run(scaling, 60)
    assert serving(world, member)["decoder"] >= 4
    calm(world)


async def test_workers_that_cannot_be_reached_are_told_seldom_and_of_that_there_is_an_event() -> (
    None
):
    world, member = await settled()
    heavy(world, member)
    world.deaf_workers = set(world.pods)
    seen: list[str] = []

    def watch(member: Member, report: Report) -> None:
        seen.extend(one.message for one in report.happenings if one.reason == "StageNotChanged")

    async with world.scaling() as scaling:
        await world.run(scaling, 180, watch)
        tries = Counter(call[1] for call in world.calls if call[0] == "change")
        assert tries
        assert max(tries.values()) <= 11
        assert len(seen) == len(tries)
        assert all("to decoder" in one and "nobody is there" in one for one in seen)
        world.deaf_workers = set()
        await world.run(scaling, 60)
    assert serving(world, member)["decoder"] >= 4
    calm(world)


async def test_it_goes_on_wherever_its_operator_was_killed() -> None:
    """Killed before its first call, then after that and before the next, and so on."""
    world, member = await settled()
    heavy(world, member)
    async with world.scaling() as scaling:
        await world.run(scaling, 120)
    whole, wanted = len(world.calls), labelled(world)
    assert whole >= 9  # what is wanted; label, worker and mark of three pods

    for survived in range(whole):
        world, member = await settled()
        pods = set(world.pods)
        heavy(world, member)

        async with world.scaling() as scaling:
            with world.killed_after(survived):
                await world.run(scaling, 120)
        async with world.scaling() as scaling:
            await world.run(scaling, 60)
        assert labelled(world) == wanted
        assert set(world.pods) == pods
        calm(world)


async def test_a_container_that_starts_again_is_what_its_label_says() -> None:
    world, member = await settled()
    heavy(world, member)
    async with world.scaling() as scaling:
        await world.run(scaling, 120)
        labels = labelled(world)
        for one in world.pods.values():
            one.serves, one.ready_at = one.place.stage, world.now + 3.0
        await world.run(scaling, 10)
    assert labelled(world) == labels
    calm(world)


async def test_a_label_that_is_nobodys_is_put_right() -> None:
    world, _ = await settled()
    name = next(name for name, one in world.pods.items() if one.place == DIT)
    world.pods[name].place = Place("dti", "a")
    async with world.scaling() as scaling:
        await world.run(scaling, 30)
    assert world.pods[name].place == DIT
    assert labelled(world) == {"encoder": 1, "dit": 6, "decoder": 1}
    assert world.held() == 8


def told(world: World) -> fleet_pb2.GetFleetResponse:
    """What a gateway says of its workers."""
    answer = fleet_pb2.GetFleetResponse()
    for one in world.pods.values():
        stage = stage_number(Stage(one.serves))
        answer.workers.append(fleet_pb2.FleetWorker(name=one.name, stages=[stage]))
    return answer


async def test_a_worker_that_does_not_serve_what_its_label_says_is_found_out() -> None:
    world, member = await settled()
    pods = set(world.pods)
    one = next(one for one in world.pods.values() if one.place == DIT)
    # Somebody has written another label.
    one.place, one.version = ENCODER, one.version + 1
    async with world.scaling() as scaling:
        for _ in range(60):
            world.fleets[str(member.key)] = told(world)
            await world.run(scaling, 1)
    assert set(world.pods) == pods
    assert serving(world, member) == {"encoder": 1, "dit": 6, "decoder": 1}
    calm(world)


async def test_a_gateway_that_does_not_know_of_a_change_takes_nothing_back() -> None:
    world, member = await settled()
    world.fleets[str(member.key)] = told(world)
    heavy(world, member)
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        assert serving(world, member)["decoder"] >= 4
        del world.fleets[str(member.key)]
        await world.run(scaling, 60)
        world.calls.clear()
        await world.run(scaling, 20)
    assert not [call for call in world.calls if call[0] in ("relabel", "change")]
    calm(world)


async def test_what_replaces_a_pod_takes_its_stage() -> None:
    world, member = await settled()
    world.change_seconds = 1000.0
    gone = next(name for name, one in world.pods.items() if one.place == ENCODER)
    del world.pods[gone]
    async with world.scaling() as scaling:
        await world.run(scaling, 30)
    # The new one got its label before its container began: nothing was loaded for nothing.
    assert serving(world, member) == {"encoder": 1, "dit": 6, "decoder": 1}
    calm(world)


async def test_what_replaces_a_pod_of_a_paused_pipeline_does_so_too() -> None:
    world, member = await settled()
    world.change(member, spec(LIGHT, paused=True))
    gone = next(name for name, one in world.pods.items() if one.place == DECODER)
    del world.pods[gone]
    async with world.scaling() as scaling:
        await world.run(scaling, 30)
    assert serving(world, member) == {"encoder": 1, "dit": 6, "decoder": 1}


async def test_fewer_of_a_stage_are_ended_and_not_of_another() -> None:
    world, member = await settled()
    member.spec = member.spec.model_copy(
        update={"stages": member.spec.stages.model_copy(
            update={"dit": member.spec.stages.dit.model_copy(update={"max_replicas": 3})}
        )}
    )  # fmt: skip
    member.generation += 1
    member.jobs.rate = steady(0.1)
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
    assert counts(member, world)["dit"] == 3
    assert serving(world, member)["encoder"] >= 1
    assert serving(world, member)["decoder"] >= 1
    calm(world)


async def test_all_go_and_come_back_as_they_were() -> None:
    world, member = await settled(scaleToZero={"afterSeconds": 60})
    member.jobs.rate = steady(0.0)
    async with world.scaling() as scaling:
        await world.run(scaling, 200)
        assert not world.pods
        # Where all go, nobody is chosen.
        assert not [call for call in world.calls if call[0] == "annotate" and call[1] == "Pod"]
        member.jobs.rate = steady(0.7)
        await world.run(scaling, 60)
    assert serving(world, member) == {"encoder": 1, "dit": 6, "decoder": 1}
    calm(world)


@pytest.mark.parametrize("mode", ["Off", "Recommend"])
async def test_where_it_does_not_decide_stages_get_their_minima_and_pods_stay(mode: str) -> None:
    world = World()
    world.add_nodes("a", 1, 8)
    member = world.add("p", spec(LIGHT, mode=mode), steady(0.5))
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        assert serving(world, member) == {"encoder": 1, "dit": 1, "decoder": 1}
        world.scale_by_hand(member, DIT, 6, "kubectl")
        await world.run(scaling, 60)
        assert serving(world, member) == {"encoder": 1, "dit": 4, "decoder": 1}
        gone = next(name for name, one in world.pods.items() if one.place == ENCODER)
        del world.pods[gone]
        await world.run(scaling, 60)
    assert serving(world, member) == {"encoder": 1, "dit": 4, "decoder": 1}
    assert member.deployments[DIT]["spec"]["replicas"] == 6


async def test_another_autoscaler_says_how_many_and_not_which() -> None:
    world, member = await settled()
    world.autoscalers = [
        {
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "theirs"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "p-flex-a"}},
        }
    ]
    async with world.scaling() as scaling:
        reports = await world.run(scaling, 5)
        told = [one.message for one in reports[member.key].findings if one.type == "Conflict"]
        assert "HorizontalPodAutoscaler theirs" in told[0]
        world.scale_by_hand(member, DIT, 5, "horizontal-pod-autoscaler")
        world.settle()
        await world.run(scaling, 60)
    assert sum(serving(world, member).values()) == 5
    assert set(serving(world, member)) == {"encoder", "dit", "decoder"}
    assert member.deployments[DIT]["spec"]["replicas"] == 5


async def test_stages_on_another_pool_have_deployments_of_their_own() -> None:
    world = World()
    world.add_nodes("a", 1, 4)
    world.add_nodes("b", 1, 4)
    given_ = spec(profile("ab", encoder=1.0, dit=6.0, decoder=1.0))
    given_["pools"]["b"] = pool("b")
    member = world.add("p", given_, steady(0.5))
    async with world.scaling() as scaling:
        await world.run(scaling, 120)
    assert sum(serving(world, member).values()) == 8
    kept = json.loads(member.annotations["disagfusion.dev/replicas"])["desired"]
    ready = world.ready(member)
    for stage, pools in kept.items():
        for name, count in pools.items():
            assert ready[Place(stage, name)] == count
    calm_ = [one for one in world.pods.values() if one.crew == "flex"]
    assert {one.place.pool for one in calm_} == {"a"}
