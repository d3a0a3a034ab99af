"""Changes of stage in which people have a hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from disagfusion_operator.scaling.changes import Changes
from disagfusion_operator.scaling.fleet import Account, read_accounts

from disagfusion.scheduling.decision import Place

from .members import BEGIN, Pod, pool, profile, stamp
from .pipelines import steady
from .world import Changed, World

ENCODER, DIT, DECODER = PLACES = [Place(stage, "a") for stage in ("encoder", "dit", "decoder")]


async def nothing() -> Mapping[str, float]:
    return {}


def restarted(ready: float, started: float) -> dict[str, Any]:
    """Return the status of a pod that is not ready since a time, whose container ended."""
    ended = {"startedAt": stamp(BEGIN + started), "finishedAt": stamp(BEGIN + 30)}
    return {
        "conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": stamp(BEGIN + ready)}
        ],
        "containerStatuses": [{"restartCount": 1, "lastState": {"terminated": ended}}],
    }


def waiting(reason: str) -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason}}}]}


FAILING = [waiting("CrashLoopBackOff"), waiting("ImagePullBackOff"), restarted(1.0, 9.0)]
READY = {"node": "n", "ready_at": BEGIN}


async def exchanged(
    odd: Mapping[str, Any], wanted: Mapping[Place, int], *others: str, starting: bool = False
) -> list[str]:
    """Return which of some DiTs change: one of an odd status, and others by their names."""
    world = World()
    member = world.add("p", {"pools": {"a": {**pool("a"), "flex": {}}}})
    world.now = BEGIN + 60
    for name in ("odd", *others):
        begins = {"node": "n"} if name.startswith("starting") or name == "odd" else READY
        world.pods[name] = Pod(name, member.key, DIT, BEGIN, crew="flex", **begins)  # type: ignore[arg-type]
    manifests = [one.manifest(world.now) for one in world.pods.values()]
    manifests[0]["status"] |= odd
    changes = Changes(world, Changed(world), "default", lambda place, seconds: None)
    accounts = read_accounts(manifests, member.deployments, {}, None, changes.current)
    await changes.exchange(
        *(PLACES, accounts, wanted, wanted, nothing, world.now), starting=starting
    )
    return [call[1] for call in world.calls if call[0] == "relabel"]


@pytest.mark.parametrize("odd", FAILING)
async def test_pods_that_will_never_work_change_last(odd: Mapping[str, Any]) -> None:
    assert await exchanged(odd, {ENCODER: 1, DIT: 2}, "r1", "r2") == ["r1"]
    assert await exchanged(odd, {ENCODER: 1, DIT: 2}, "starting", "r1") == ["starting"]
    # Where all change, they do as well; the last that works stays where some are to stay.
    assert await exchanged(odd, {ENCODER: 3}, "r1", "r2") == ["r1", "r2", "odd"]
    assert await exchanged(odd, {ENCODER: 1, DIT: 1}, "r1") == ["odd"]
    paused = await exchanged(odd, {ENCODER: 2, DIT: 1}, "r1", "starting", starting=True)
    assert paused == ["starting", "odd"]


async def test_a_pod_that_worked_and_starts_again_changes_first() -> None:
    assert await exchanged(restarted(30.0, 9.0), {ENCODER: 1, DIT: 2}, "r1", "r2") == ["odd"]


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
