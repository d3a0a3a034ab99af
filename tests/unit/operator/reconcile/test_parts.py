"""The parts that a reconcile is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from disagfusion_operator.k8s.kinds import AUTOSCALER, DEPLOYMENT, NODE, PIPELINE, POD, SERVICE
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.reconcile.drift import differences, digest, stamped
from disagfusion_operator.reconcile.outcome import OK, failed, waits, worst
from disagfusion_operator.reconcile.queue import Controller, Look
from disagfusion_operator.scaling.view import Key

from disagfusion.errors import UnavailableError

KEY = Key("demo", "digits")


def test_only_what_was_applied_is_compared() -> None:
    wanted = {
        "spec": {
            "paused": False,
            "containers": [{"name": "a", "image": "x", "env": []}],
            "limits": {"cpu": "1000m", "memory": "1Gi"},
            "args": ["one", "two"],
        }
    }
    found = {
        "spec": {
            "containers": [
                {"name": "added", "image": "y"},
                {"name": "a", "image": "x", "terminationMessagePath": "/dev/log"},
            ],
            "limits": {"cpu": "1", "memory": "1073741824"},
            "args": ["one", "two"],
            "dnsPolicy": "ClusterFirst",
        },
        "status": {},
    }
    assert differences(wanted, found) == []


@pytest.mark.parametrize(
    ("wanted", "found", "where"),
    [
        ({"a": 1}, {"a": 2}, ".a=2"),
        ({"a": {"b": "x"}}, {"a": None}, ".a=null"),
        ({"a": {"b": "x"}}, {}, ".a=null"),
        ({"a": ["x"]}, {"a": ["x", "y"]}, ".a=2 items"),
        ({"a": ["x"]}, {"a": "x"}, '.a="x"'),
        ({"a": [{"name": "n", "v": 1}]}, {"a": []}, ".a[n]=null"),
        (
            {"a": [{"port": 1, "v": 1}]},
            {"a": [{"port": 1, "protocol": "UDP", "v": 1}]},
            ".a[1]=null",
        ),
        ({"cpu": "1000m"}, {"cpu": "2"}, '.cpu="2"'),
        ({"a": True}, {}, ".a=null"),
    ],
)  # fmt: skip
def test_differences_have_a_place(wanted: Object, found: Object, where: str) -> None:
    assert differences(wanted, found) == [where]


def test_a_manifest_carries_its_own_digest() -> None:
    manifest = {"kind": "K", "metadata": {"name": "n", "annotations": {"mine": "1"}}}
    annotations = stamped(manifest)["metadata"]["annotations"]
    assert annotations == {"mine": "1", "disagfusion.dev/applied-hash": digest(manifest)}
    assert digest({**manifest, "spec": 1}) != digest(manifest)
    assert manifest["metadata"] == {"name": "n", "annotations": {"mine": "1"}}


def test_the_worst_outcome_counts() -> None:
    first = failed("A", "a")
    assert worst([OK, waits("W", "w"), first, failed("B", "b")]) == first
    assert worst([]) == OK


def owned(kind: Any, name: str, version: int, uid: str = "u", **content: Any) -> Object:
    labels = {"disagfusion.dev/pipeline": "digits"}
    metadata = {"namespace": "demo", "name": name, "uid": uid, "labels": labels}
    metadata["resourceVersion"] = str(version)
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **content}


def test_the_cache_keeps_the_newest_and_wakes_the_owner() -> None:
    woken: list[Key] = []
    cache = Cache(woken.append)
    cache.put(SERVICE, owned(SERVICE, "s", 5, spec={"a": 1}))
    cache.put(SERVICE, owned(SERVICE, "s", 3, spec={"a": 0}))
    child = cache.child(KEY, SERVICE, "s")
    assert child is not None
    assert child.content()["spec"] == {"a": 1}
    assert woken == [KEY]
    cache.drop(SERVICE, owned(SERVICE, "s", 9))
    assert cache.child(KEY, SERVICE, "s") is None
    # A list that was begun before it went comes too late.
    cache.put(SERVICE, owned(SERVICE, "s", 5))
    assert cache.child(KEY, SERVICE, "s") is None
    cache.put(SERVICE, owned(SERVICE, "s", 2, uid="another"))
    assert cache.child(KEY, SERVICE, "s") is not None
    assert cache.stamp(KEY) == 3


async def listed(*found: Object) -> AsyncIterator[Object]:
    for one in found:
        yield one


async def test_a_list_takes_away_what_is_not_in_it() -> None:
    woken: list[Key] = []
    cache = Cache(woken.append)
    for name in ("a", "b"):
        cache.put(POD, owned(POD, name, 1, uid=name, status={}))
    other = owned(POD, "c", 1, uid="c", status={})
    other["metadata"]["namespace"] = "elsewhere"
    cache.put(POD, other)
    before = cache.names(POD, "demo")
    # What was made while the list was under way is in no list yet.
    cache.put(POD, owned(POD, "new", 9, uid="new", status={}))
    later = owned(POD, "b", 2, uid="b", status={"phase": "Running"})
    await cache.replace(POD, before, listed(later))
    assert [pod["metadata"]["name"] for pod in cache.pods(KEY)] == ["b", "new"]
    assert len(cache.pods(Key("elsewhere", "digits"))) == 1
    await cache.replace(POD, cache.names(POD), listed())
    assert cache.pods(Key("elsewhere", "digits")) == []


def test_what_loses_its_label_belongs_to_nobody() -> None:
    cache = Cache()
    cache.put(SERVICE, owned(SERVICE, "s", 1))
    bare = owned(SERVICE, "s", 2)
    bare["metadata"]["labels"] = {}
    cache.put(SERVICE, bare)
    assert cache.children(KEY) == []


def test_nodes_have_a_number_that_changes_with_them() -> None:
    cache = Cache()
    node = {"metadata": {"name": "n", "uid": "u"}, "status": {"allocatable": {"gpu": "1"}}}
    cache.put(NODE, node)
    before = cache.nodes_version
    beat = {**node, "status": {**node["status"], "images": [1]}}
    cache.put(NODE, beat)
    assert cache.nodes_version == before
    cache.put(NODE, {**node, "spec": {"unschedulable": True}})
    assert cache.nodes_version == before + 1
    cache.drop(NODE, node)
    assert cache.nodes() == []
    assert cache.nodes_version == before + 2


def test_a_list_that_is_older_than_an_event_undoes_nothing() -> None:
    cache = Cache()

    def node(version: int, *, uid: str = "u", cordoned: bool = False) -> Object:
        metadata = {"name": "n", "uid": uid, "resourceVersion": str(version)}
        return {"metadata": metadata, "spec": {"unschedulable": True} if cordoned else {}}

    cache.put(NODE, node(5))
    cache.put(NODE, node(7, cordoned=True))
    before = cache.nodes_version
    cache.put(NODE, node(6))
    assert cache.nodes()[0]["spec"] == {"unschedulable": True}
    assert cache.nodes_version == before
    cache.put(NODE, node(8))
    assert cache.nodes()[0]["spec"] == {}
    # Another one of the same name has versions of its own.
    cache.put(NODE, node(2, uid="another", cordoned=True))
    assert cache.nodes()[0]["spec"] == {"unschedulable": True}
    metadata = {"namespace": "demo", "name": "h", "uid": "u", "resourceVersion": "5"}
    target = {"scaleTargetRef": {"kind": "Deployment", "name": "d"}}
    cache.put(AUTOSCALER, {"metadata": metadata, "spec": target})
    cache.put(AUTOSCALER, {"metadata": {**metadata, "resourceVersion": "4"}, "spec": {}})
    (found,) = cache.autoscalers("demo")
    assert found["spec"] == target


def test_an_autoscaler_wakes_the_pipelines_of_its_namespace_when_its_target_changes() -> None:
    woken: list[Key] = []
    cache = Cache(woken.append)
    for name in ("one", "other"):
        metadata = {"namespace": name, "name": "p", "uid": name, "resourceVersion": "1"}
        cache.put(PIPELINE, {"metadata": metadata, "spec": {}})
    woken.clear()
    scaler = {
        "metadata": {"namespace": "one", "name": "h", "resourceVersion": "1"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}},
    }
    cache.put(AUTOSCALER, scaler)
    assert woken == [Key("one", "p")]
    beat = {
        **scaler,
        "metadata": {**scaler["metadata"], "resourceVersion": "2"},
        "status": {"a": 1},
    }
    cache.put(AUTOSCALER, beat)
    assert woken == [Key("one", "p")]
    assert cache.autoscalers("other") == []
    cache.drop(AUTOSCALER, scaler)
    assert woken == [Key("one", "p")] * 2
    assert cache.autoscalers("one") == []


def test_who_owns_replicas_is_kept_and_nothing_else_of_it() -> None:
    cache = Cache()
    fields = {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {}}}}
    entries = [
        {"manager": "kubectl", "operation": "Update", "fieldsV1": fields, "time": "t"},
        {"manager": "other", "operation": "Update", "fieldsV1": {"f:status": {}}},
    ]
    found = owned(DEPLOYMENT, "d", 1, spec={"replicas": 2, "template": {}})
    found["metadata"]["managedFields"] = entries
    cache.put(DEPLOYMENT, found)
    (kept,) = cache.deployments(KEY)
    assert kept["metadata"]["managedFields"] == [
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    ]


class Turns:
    """Looks that a test answers."""

    def __init__(self) -> None:
        self.seen: list[Key] = []
        self.answer: Look | Exception = Look(1000.0)
        self.gate: asyncio.Event | None = None
        self.running = 0
        self.most = 0

    async def look(self, key: Key) -> Look:
        self.seen.append(key)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer
        finally:
            self.running -= 1


async def looked(turns: Turns, count: int) -> None:
    async with asyncio.timeout(10):
        while len(turns.seen) < count or turns.running:  # noqa: ASYNC110 - a few steps
            await asyncio.sleep(0)


async def test_a_pipeline_is_looked_at_by_one_at_a_time_and_again_if_something_happened() -> None:
    turns = Turns()
    turns.gate = asyncio.Event()
    controller = Controller(turns.look, workers=4, clock=asyncio.get_running_loop().time)
    running = asyncio.create_task(controller.run())
    for name in ("a", "b"):
        controller.wake(Key("n", name))
    async with asyncio.timeout(5):
        while turns.running < 2:  # noqa: ASYNC110 - a few steps
            await asyncio.sleep(0)
    for _ in range(3):
        controller.wake(Key("n", "a"))
    turns.gate.set()
    await looked(turns, 3)
    assert turns.seen == [Key("n", "a"), Key("n", "b"), Key("n", "a")]
    assert turns.most == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_no_more_looks_than_workers() -> None:
    turns = Turns()
    turns.gate = asyncio.Event()
    controller = Controller(turns.look, workers=2, clock=asyncio.get_running_loop().time)
    running = asyncio.create_task(controller.run())
    for index in range(6):
        controller.wake(Key("n", str(index)))
    for _ in range(50):
        await asyncio.sleep(0)
    turns.gate.set()
    await looked(turns, 6)
    assert turns.most == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("error", [UnavailableError("away"), RuntimeError("a surprise")])
async def test_a_look_that_fails_is_made_again_and_keeps_nobody_else_waiting(
    error: Exception,
) -> None:
    turns, now = Turns(), 0.0
    failures: list[bool] = []
    controller = Controller(
        turns.look, workers=2, clock=lambda: now, note=lambda seconds, bad: failures.append(bad)
    )
    running = asyncio.create_task(controller.run())
    turns.answer = error
    controller.wake(KEY)
    await looked(turns, 1)
    assert failures == [True]
    # Tried again after a second, then after two, however often it is woken.
    controller.wake(KEY)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(turns.seen) == 1
    turns.answer = Look(1000.0)
    now = 1.5
    controller.wake(Key("n", "other"))
    await looked(turns, 3)
    assert failures == [True, False, False]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_gone_is_forgotten_and_what_is_late_is_known() -> None:
    turns, now = Turns(), 0.0
    controller = Controller(turns.look, workers=1, clock=lambda: now)
    running = asyncio.create_task(controller.run())
    turns.answer = Look(None)
    controller.wake(KEY)
    await looked(turns, 1)
    await asyncio.sleep(0)
    assert len(controller) == 0
    turns.gate = asyncio.Event()
    controller.wake(KEY)
    await looked_at(turns)
    now = 200.0
    assert controller.overdue() == 200.0
    turns.gate.set()
    await looked(turns, 2)
    await asyncio.sleep(0)
    assert controller.overdue() == 0.0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_pipelines_that_wait_for_each_other_are_not_late() -> None:
    turns, now = Turns(), 0.0
    controller = Controller(turns.look, workers=1, clock=lambda: now)
    running = asyncio.create_task(controller.run())
    turns.answer, turns.gate = Look(1000.0), asyncio.Event()
    for number in range(3):
        controller.wake(Key("n", f"p{number}"))
    for done in range(1, 3):
        await looked_at(turns)
        now += 60.0
        assert controller.overdue() == 60.0
        turns.gate.set()
        await looked(turns, done)
        turns.gate = asyncio.Event()
        # The third has waited since the beginning.
        assert controller.overdue() == 0.0
    await looked_at(turns)
    now += 100.0
    assert controller.overdue() == 100.0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def looked_at(turns: Turns) -> None:
    async with asyncio.timeout(5):
        while not turns.running:  # noqa: ASYNC110 - a few steps
            await asyncio.sleep(0)
