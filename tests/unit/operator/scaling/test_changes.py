"""Changes of stage in which people have a hand."""

from __future__ import annotations

from collections.abc import Mapping

from disagfusion_operator.scaling.changes import Changes
from disagfusion_operator.scaling.fleet import Account, read_accounts

from disagfusion.scheduling.decision import Place

from .members import BEGIN, Pod, pool, profile
from .pipelines import steady
from .world import Changed, World

ENCODER, DIT, DECODER = PLACES = [Place(stage, "a") for stage in ("encoder", "dit", "decoder")]


async def nothing() -> Mapping[str, float]:
    return {}


async def test_what_a_change_took_is_told_once() -> None:
    world = World()
    member = world.add("p", {"pools": {"a": {**pool("a"), "flex": {}}}})
    world.now = BEGIN + 60
    pod = Pod("x", member.key, DIT, BEGIN, node="n", ready_at=BEGIN, crew="flex", serves="dit")
    world.pods["x"] = pod
    told: list[tuple[Place, float]] = []
    changes = Changes(
        world, Changed(world), "default", lambda place, seconds: told.append((place, seconds))
    )

    def accounts() -> dict[Place, Account]:
        manifests = [pod.manifest(world.now)]
        return read_accounts(manifests, member.deployments, {}, None, changes.current)

    async def tell() -> None:
        for seconds in (0.0, world.change_seconds):
            world.now += seconds
            live = [one for account in accounts().values() for one in account.live]
            await changes.tell(live, None, world.now)

    await changes.exchange(PLACES, accounts(), {}, {ENCODER: 1}, nothing, world.now)
    await tell()
    assert told == [(ENCODER, world.change_seconds)]
    world.now += 3600.0
    # Somebody has written another label; the operator did not change it.
    pod.place, pod.version = DIT, pod.version + 1
    assert await changes.doubt(accounts()[DIT].live, {"x": "encoder"}, world.now) == 1
    await tell()
    assert pod.serves == "dit"
    assert not [name for name in pod.annotations if name.endswith("stage-changes-from")]
    assert told == [(ENCODER, world.change_seconds)]


async def test_another_autoscaler_may_act_where_a_stage_of_the_pool_does_not_run() -> None:
    world = World()
    world.add_nodes("a", 1, 4)
    world.add_nodes("b", 1, 4)
    costs = profile("ab", encoder={"a": 1.0}, dit={"b": 6.0}, decoder={"a": 1.0})
    given = {
        "pools": {"a": {**pool("a"), "flex": {}}, "b": pool("b")},
        "scaling": {"budget": 8, "profile": costs},
    }
    member = world.add("p", given, steady(0.3))
    target = {"kind": "Deployment", "name": "p-flex-a"}
    world.autoscalers = [
        {
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "theirs"},
            "spec": {"scaleTargetRef": target},
        }
    ]
    async with world.scaling() as scaling:
        world.scale_by_hand(member, DIT, 4, "horizontal-pod-autoscaler")
        await world.run(scaling, 60)
    assert member.deployments[DIT]["spec"]["replicas"] == 4
    ready = world.ready(member)
    assert ready[ENCODER] >= 1
    assert ready[DECODER] >= 1
    assert sum(ready[place] for place in PLACES) == 4
