"""Three pipelines on three pools while the load moves from one to another."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from disagfusion_operator.api.base import STAGES
from disagfusion_operator.api.status import Condition
from disagfusion_operator.scaling.report import Report

from disagfusion.scheduling.decision import Place

from .members import BEGIN, Member, pool, profile
from .pipelines import finding
from .world import World, counts

POOLS = ("h100", "a100", "a10")
PHASE = 200.0


def costs(dit: float) -> dict[str, Any]:
    return profile(
        POOLS,
        encoder={"h100": 0.5, "a100": 0.8, "a10": 1.0},
        dit={"h100": dit, "a100": 1.6 * dit, "a10": 3.0 * dit},
        decoder={"h100": 0.8, "a100": 1.0, "a10": 1.5},
    )


def in_phase(number: int, rate: float) -> Callable[[float], float]:
    return lambda now: rate if int((now - BEGIN) / PHASE) % 3 == number else 0.05


async def test_replicas_move_to_whoever_has_the_load() -> None:
    world = World()
    for name in POOLS:
        world.add_nodes(name, 2, 4)
    members = [
        world.add(
            name,
            {"pools": {one: pool(one) for one in POOLS}, "scaling": {"profile": costs(dit)}},
            in_phase(number, rate),
        )
        for number, (name, dit, rate) in enumerate(
            (("flux", 6.0, 1.2), ("qwen-image", 8.0, 1.0), ("wan", 10.0, 0.8))
        )
    ]
    changes = 0

    def watch(member: Member, report: Report) -> None:
        nonlocal changes
        changes += sum(one.reason == "Bounded" for one in report.happenings)
        for name in POOLS:
            assert world.held(name) <= 8
        # No stage is ever without a replica that works or starts.
        assert world.now < BEGIN + 3 or all(counts(member, world).values())

    async with world.scaling() as scaling:
        for number, busy in enumerate(members):
            await world.run(scaling, PHASE, watch)
            others = [one for one in members if one is not busy]
            mine = sum(counts(busy, world).values())
            theirs = [sum(counts(one, world).values()) for one in others]
            assert mine > 1.5 * max(theirs), number
            # It keeps up with what comes.
            assert busy.jobs.done > 0.8 * busy.jobs.came
    # A share is taken from somebody a few times, not all the time.
    assert changes <= 8


async def test_a_higher_priority_gets_room_by_draining_others() -> None:
    world = World()
    world.add_nodes("a", 1, 8)
    costs_of = profile("a", encoder=1.0, dit=6.0, decoder=1.0)
    each = {"pools": {"a": pool("a")}, "scaling": {"profile": costs_of}}
    low = world.add("low", each, lambda now: 3.0)
    async with world.scaling() as scaling:
        await world.run(scaling, 90)
        assert sum(counts(low, world).values()) == 8
        urgent = {**each, "scaling": {**each["scaling"], "priority": 100}}
        high = world.add("high", urgent, lambda now: 0.6)
        most = 0

        def watch(_: Member, report: Report) -> None:
            nonlocal most
            most = max(most, world.held())

        await world.run(scaling, 120, watch)
        assert counts(high, world)["dit"] >= 4
        assert most == 8
        # When it has gone, the other one gets everything back.
        for name in [name for name, pod in world.pods.items() if pod.key == high.key]:
            del world.pods[name]
        del world.members[high.key]
        scaling.forget(high.key)
        await world.run(scaling, 120)
    assert sum(counts(low, world).values()) == 8


async def test_a_pipeline_that_comes_gets_its_minima() -> None:
    world = World()
    world.add_nodes("a", 1, 8)
    costs_of = profile("a", encoder=1.0, dit=6.0, decoder=1.0)
    each = {"pools": {"a": pool("a")}, "scaling": {"profile": costs_of}}
    first = world.add("first", each, lambda now: 3.0)
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        second = world.add("second", each)
        await world.run(scaling, 60)
    assert counts(second, world) == {"encoder": 1, "dit": 1, "decoder": 1}
    assert sum(counts(first, world).values()) == 5
    assert world.held() == 8


async def test_one_that_is_deleted_holds_its_room_until_its_pods_are_gone() -> None:
    world = World()
    world.drain_seconds = 120.0
    world.add_nodes("a", 1, 8)
    costs_of = profile("a", encoder=1.0, dit=6.0, decoder=1.0)
    each = {"pools": {"a": pool("a")}, "scaling": {"profile": costs_of}}
    old = world.add("old", {**each, "scaling": {"budget": 5, **each["scaling"]}})
    new = world.add("new", each, lambda now: 3.0)
    most = 0

    def watch(_: Member, report: Report) -> None:
        nonlocal most
        most = max(most, world.held())

    async with world.scaling() as scaling:
        await world.run(scaling, 30, watch)
        for deployment in old.deployments.values():
            deployment["spec"]["replicas"] = 0
        world.settle()
        for _ in range(60):
            scaling.leave(world.view(old), world.now)
            await world.run(scaling, 1, watch, [new])
        assert most == 8
        assert sum(counts(new, world).values()) == 5
        await world.run(scaling, 70, watch, [new])
        del world.members[old.key]
        scaling.forget(old.key)
        await world.run(scaling, 60, watch)
    assert most == 8
    assert sum(counts(new, world).values()) == 8


class Noisy:
    """What a window of a minute says of jobs that come at random."""

    def __init__(self, rate: float, seed: int) -> None:
        self._rate = rate
        self._random = random.Random(seed)
        self._last = BEGIN
        self._jobs: list[float] = []

    def __call__(self, now: float) -> float:
        at = self._last
        while (at := at + self._random.expovariate(self._rate)) <= now:
            self._jobs.append(at)
        self._last = now
        self._jobs = [one for one in self._jobs if one > now - 60.0]
        return len(self._jobs) / min(60.0, max(1.0, now - BEGIN))


async def test_jobs_that_come_at_random_move_nothing_from_one_to_another() -> None:
    world = World()
    for name in POOLS:
        world.add_nodes(name, 2, 4)
    spec = {"pools": {one: pool(one) for one in POOLS}}
    for number, (name, dit, rate) in enumerate(
        (("flux", 6.0, 0.5), ("qwen-image", 8.0, 0.4), ("wan", 10.0, 0.35))
    ):
        world.add(name, {**spec, "scaling": {"profile": costs(dit)}}, Noisy(rate, number))
    taken: list[str] = []
    async with world.scaling() as scaling:
        await world.run(scaling, 300)
        await world.run(
            scaling,
            600,
            lambda _, report: taken.extend(
                one.message for one in report.happenings if one.reason == "Bounded"
            ),
        )
    assert len(taken) <= 1
    for member in world.members.values():
        assert sum(member.jobs.waiting.values()) < 20


async def test_what_pods_hold_that_nobody_looks_after_is_given_to_nobody() -> None:
    world = World()
    world.add_nodes("a", 1, 8)
    costs_of = profile("a", encoder=1.0, dit=6.0, decoder=1.0)
    each = {"pools": {"a": pool("a")}, "scaling": {"profile": costs_of}}
    lost = world.add("lost", {**each, "scaling": {"budget": 3, **each["scaling"]}})
    async with world.scaling() as scaling:
        await world.run(scaling, 30)
    assert world.held() == 3
    # An operator that is started anew cannot read it, or it was deleted meanwhile.
    other = world.add("other", each, lambda now: 3.0)
    seen: list[str] = []

    def watch(_: Member, report: Report) -> None:
        seen.extend(one.reason for one in report.happenings)

    async with world.scaling() as scaling:
        for _ in range(90):
            scaling.hold(lost.key, world.view(lost).pods)
            await world.run(scaling, 1, watch, [other])
            assert world.held() <= 8
        assert sum(counts(other, world).values()) == 5
        # When its pods are gone, others get what they held.
        for deployment in lost.deployments.values():
            deployment["spec"]["replicas"] = 0
        await world.run(scaling, 30, watch, [other])
        scaling.hold(lost.key, world.view(lost).pods)
        await world.run(scaling, 30, watch, [other])
    assert sum(counts(other, world).values()) == 8
    assert "PoolFull" not in seen


async def test_what_pods_of_a_removed_pool_hold_is_given_to_nobody() -> None:
    world = World()
    for name in "ab":
        world.add_nodes(name, 1, 4)
    both = profile("ab", encoder=1.0, dit=6.0, decoder=1.0)
    pools = {"a": pool("a"), "b": pool("b")}
    mover = world.add("mover", {"pools": pools, "scaling": {"budget": 8, "profile": both}})
    async with world.scaling() as scaling:
        await world.run(scaling, 30)
        assert world.held("a", mover.key) == 4
        # Its pods on the other pool stay as they are for now.
        world.change(mover, {"pools": {"b": pool("b")}, "scaling": {"budget": 8, "profile": both}})
        gone = [place for place in mover.deployments if place.pool == "a"]
        kept = {place: mover.deployments.pop(place) for place in gone}
        other = world.add(
            "other", {"pools": {"a": pool("a")}, "scaling": {"profile": both}}, lambda now: 3.0
        )
        await world.run(scaling, 60)
        assert world.held("a", other.key) == 0
        mover.deployments |= kept
        for deployment in kept.values():
            deployment["spec"]["replicas"] = 0
        world.settle()
        for place in gone:
            del mover.deployments[place]
        await world.run(scaling, 60)
    assert world.held("a", other.key) == 4


@pytest.mark.parametrize("budget", [None, 4])
async def test_pipelines_on_a_pool_without_nodes_make_pods_for_which_some_come(
    budget: int | None,
) -> None:
    world = World()
    world.add_nodes("other", 1, 1)
    costs_of = profile("a", encoder=1.0, dit=6.0, decoder=1.0)
    pools = {"a": pool("a", provisioning="Autoscaled")}
    scaling_of = {"profile": costs_of} | ({} if budget is None else {"budget": budget})
    members = [
        world.add(name, {"pools": pools, "scaling": scaling_of}, lambda now: 0.4)
        for name in ("one", "two")
    ]
    async with world.scaling() as scaling:
        await world.run(scaling, 60)
        for member in members:
            assert sum(counts(member, world).values()) == (budget or 3)
        world.add_nodes("a", 2, budget or 3)
        reports = await world.run(scaling, 60)
    for member in members:
        assert set(world.ready(member)) == {Place(stage, "a") for stage in STAGES}
        limited = finding(reports[member.key], Condition.SCALING_LIMITED)
        told = "a: nodes come for more with capacity or scaling.budget"
        assert (told in limited.message) is (budget is None)
