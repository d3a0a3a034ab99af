"""What pipelines want as long as nobody tells of any load."""

from __future__ import annotations

import pytest
from disagfusion_operator.scaling.intent import ANNOTATION, read_intent

from .members import Member, pool, profile
from .world import World, counts


def a_world() -> tuple[World, list[Member]]:
    """Two pipelines that would like six accelerators each of eight, and no Prometheus."""
    world = World()
    world.prometheus = False
    world.add_nodes("a", 1, 8)
    costs = profile("a", encoder=1.0, dit=6.0, decoder=1.0)
    wanted = {"pools": {"a": pool("a")}, "scaling": {"profile": costs, "budget": 6}}
    return world, [world.add(name, wanted) for name in ("first", "second")]


@pytest.mark.parametrize("restart", [False, True])
async def test_one_gets_its_whole_budget_when_others_leave_it_the_room(restart: bool) -> None:
    world, (first, second) = a_world()
    scaling = world.scaling()
    async with scaling:
        await world.run(scaling, 60)
        assert [sum(counts(one, world).values()) for one in (first, second)] == [4, 4]
        for deployment in second.deployments.values():
            deployment["spec"]["replicas"] = 0
        world.settle()
        del world.members[second.key]
        scaling.forget(second.key)
        if not restart:
            await world.run(scaling, 60)
    if restart:
        async with world.scaling() as again:
            await world.run(again, 60)
    assert counts(first, world) == {"encoder": 1, "dit": 4, "decoder": 1}


async def test_one_that_comes_later_gets_a_part_and_then_nothing_moves() -> None:
    world, (first, second) = a_world()
    del world.members[second.key]
    async with world.scaling() as scaling:
        await world.run(scaling, 30)
        assert sum(counts(first, world).values()) == 6
        world.members[second.key] = second
        most = 0

        def watch(_: Member, __: object) -> None:
            nonlocal most
            most = max(most, world.held())

        await world.run(scaling, 120, watch)
        assert most == 8
        assert min((*counts(first, world).values(), *counts(second, world).values())) == 1
        world.calls.clear()
        await world.run(scaling, 120, watch)
    assert world.calls == []


async def test_what_a_load_has_changed_is_no_plan_any_more() -> None:
    world, (first, _) = a_world()
    world.prometheus = True
    first.jobs.rate = lambda now: 1.0
    async with world.scaling() as scaling:
        await world.run(scaling, 120)
    intent = read_intent(first.annotations[ANNOTATION])
    assert intent is not None
    assert not intent.planned
