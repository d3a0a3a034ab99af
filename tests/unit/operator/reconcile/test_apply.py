"""Whose an object is, before it is applied; and what of it can never change."""

from __future__ import annotations

import asyncio

from bench import Bench
from disagfusion_operator.k8s.kinds import (
    CHILDREN,
    CLAIM,
    DEPLOYMENT,
    PIPELINE,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.reconcile.apply import Applier
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.scaling.view import Key
from fakes import FakeCluster, pipeline

from disagfusion.errors import AlreadyExistsError

OTHER = Key("demo", "digits-dit")


def parts(found: Object) -> tuple[Object, Object, Object]:
    metadata = found["metadata"]
    return metadata["labels"], metadata["ownerReferences"], found["spec"]


async def test_two_pipelines_do_not_take_each_others_service() -> None:
    bench = Bench()
    await bench.settle()
    before = parts(bench.cluster.peek(SERVICE, "demo", "digits-dit"))
    bench.cluster.create(pipeline(OTHER.name, OTHER.namespace))
    for _ in range(3):
        assert (await bench.reconciler.look(OTHER)).failed
        assert parts(bench.cluster.peek(SERVICE, "demo", "digits-dit")) == before
        bench.calls()
        await bench.look()
        assert bench.calls() == []
    status = bench.cluster.peek(PIPELINE, "demo", OTHER.name)["status"]
    (degraded,) = [one for one in status["conditions"] if one["type"] == "Degraded"]
    assert degraded["message"].startswith("Service digits-dit: it is there already")
    # With the one that has it, the name is free.
    bench.cluster.remove(PIPELINE, "demo", OTHER.name)
    assert parts(bench.cluster.peek(SERVICE, "demo", "digits-dit")) == before


async def test_of_two_at_the_same_time_one_is_refused() -> None:
    cluster, cache = FakeCluster(), Cache()
    applier = Applier(cluster, cache)
    keys = Key("demo", "a"), Key("demo", "a-dit")
    for key in keys:
        cache.put(PIPELINE, cluster.create(pipeline(key.name)))

    def manifest(key: Key) -> Object:
        resource = cache.pipeline(key)
        assert resource
        owner = {"kind": PIPELINE.kind, "name": key.name, "uid": resource["metadata"]["uid"]}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "namespace": "demo",
                "name": "a-dit",
                "labels": {"disagfusion.dev/pipeline": key.name},
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": {"selector": {"disagfusion.dev/pipeline": key.name}},
        }

    # Neither has heard of the other's when it begins.
    found = await asyncio.gather(
        *(applier.ensure(key, manifest(key)) for key in keys), return_exceptions=True
    )
    assert found[0] is True
    assert isinstance(found[1], AlreadyExistsError)
    assert parts(cluster.peek(SERVICE, "demo", "a-dit"))[0] == {"disagfusion.dev/pipeline": "a"}


async def test_what_says_nothing_else_is_let_alone_too() -> None:
    bench = Bench()
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    theirs: list[tuple[Kind, str, Object]] = [
        (CLAIM, "digits-results", {"spec": spec}),
        (SERVICE_ACCOUNT, "digits-stage", {}),
    ]
    for kind, name, content in theirs:
        metadata = {"namespace": "demo", "name": name}
        made = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        bench.cluster.create({**made, **content})
    before = [bench.cluster.peek(kind, "demo", name) for kind, name, _ in theirs]
    bench.write()
    assert (await bench.look()).failed
    assert [bench.cluster.peek(kind, "demo", name) for kind, name, _ in theirs] == before
    await bench.cluster.delete(PIPELINE, "demo", "digits")


async def test_what_is_not_there_is_made_without_a_look() -> None:
    bench = Bench()
    bench.write()
    await bench.look()
    made = {(kind.plural, name) for kind in CHILDREN for name in bench.cluster.names(kind)}
    calls = [call for call in bench.calls() if call[1:] in made]
    assert len(calls) == len(made) + len([call for call in calls if call[0] == "scale"])
    assert {call[0] for call in calls} == {"apply", "scale"}


async def test_what_a_deleted_pipeline_of_the_same_name_has_left_goes_first() -> None:
    bench = Bench()
    await bench.settle()
    uid = bench.cluster.peek(PIPELINE, "demo", "digits")["metadata"]["uid"]
    before = {one["metadata"]["uid"] for one in bench.cluster.all(CLAIM)}
    # It is gone; what belonged to it is not yet, but for what has its volumes and the key.
    kept = {place: one for place, one in bench.cluster.stored.items() if place[0] != PIPELINE}
    bench.cluster.stored.pop((PIPELINE, "demo", "digits"))
    bench.cluster.remove(DEPLOYMENT, "demo", "digits-gateway")
    bench.cluster.remove(SECRET, "demo", "digits-internal")
    bench.write()
    for _ in range(3):
        bench.calls()
        look = await bench.look()
        assert not look.failed
        assert look.again is not None
        assert look.again <= 2.0
    # It waits, and asks nobody meanwhile.
    assert {call[0] for call in bench.calls()} <= {"apply_status"}
    assert bench.condition("Progressing")["reason"] == "NamesakeGoes"
    assert bench.condition("Degraded")["status"] == "False"
    for (kind, space, name), one in kept.items():
        if kind in CHILDREN and name != "digits-gateway":
            (owner,) = bench.cluster.peek(kind, space, name)["metadata"]["ownerReferences"]
            assert owner["uid"] == uid, one
    # No new gateway opens the old jobs.
    assert "digits-gateway" not in bench.cluster.names(DEPLOYMENT)
    for kind, space, name in list(kept):
        found = bench.cluster.stored.get((kind, space, name))
        owners = found.content["metadata"].get("ownerReferences") or () if found else ()
        if any(owner["uid"] == uid for owner in owners):
            bench.cluster.remove(kind, space, name)
    assert (await bench.settle())["state"] == "Ready"
    assert not before & {one["metadata"]["uid"] for one in bench.cluster.all(CLAIM)}


async def test_a_claim_keeps_the_access_that_it_was_made_with() -> None:
    bench = Bench()
    gateway = {"store": {"postgresql": {"urlSecret": {"name": "db", "key": "url"}}}}
    await bench.settle(gateway=gateway)
    claim = bench.cluster.peek(CLAIM, "demo", "digits-results")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]

    # As it was made when that went by the number of gateways.
    def refuse(verb: str, found: Object) -> None:
        made = "resourceVersion" in found["metadata"]
        if verb == "apply" and found["kind"] == "PersistentVolumeClaim" and not made:
            assert found["spec"]["accessModes"] == ["ReadWriteOnce"], "immutable"

    metadata = {**claim["metadata"], "annotations": {}}
    spec = {**claim["spec"], "accessModes": ["ReadWriteOnce"]}
    bench.cluster.create({**claim, "metadata": metadata, "spec": spec}, "disagfusion-operator")
    bench.cluster.refuse = refuse
    assert (await bench.settle(gateway={**gateway, "replicas": 2}))["state"] == "Ready"
    assert bench.deployment("gateway")["spec"]["replicas"] == 2
    bench.restart()
    bench.calls()
    await bench.settle()
    assert [call for call in bench.calls() if call[0] == "apply"] == []
    # Also where the cache does not know it.
    found = bench.cluster.peek(CLAIM, "demo", "digits-results")
    bench.cache.drop(CLAIM, {"metadata": {**found["metadata"], "uid": ""}})
    assert (await bench.settle())["state"] == "Ready"
