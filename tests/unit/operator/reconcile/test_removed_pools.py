"""Pools are taken away or replaced: their pods stay as long as they are needed."""

from __future__ import annotations

from typing import Any

import pytest
from bench import Bench
from disagfusion_operator.desired.names import version_of
from disagfusion_operator.k8s.kinds import DEPLOYMENT, NODE, POD
from disagfusion_operator.reconcile.gateways import Fleet
from disagfusion_operator.reconcile.strays import SETTLE_SECONDS

STAGES = ("encoder", "dit", "decoder")
HALF_AN_HOUR = 1800.0


async def served(dits: int = 1, **spec: Any) -> Bench:
    """Return a pipeline that serves on pool a."""
    bench = Bench()
    bench.scaling.wanted = {(stage, "a"): 1 for stage in STAGES} | {("dit", "a"): dits}
    await bench.settle(pools={"a": {}}, **spec)
    assert len(bench.nodes.pods(component="dit", pool="a")) == dits
    return bench


def version(bench: Bench) -> str:
    return version_of(bench.deployment("dit", "a")["spec"]["template"])


def there(bench: Bench, pool: str = "a") -> dict[str, int]:
    """Return the replicas that Deployments of a pool ask for."""
    names = bench.cluster.names(DEPLOYMENT)
    return {
        stage: bench.deployment(stage, pool)["spec"]["replicas"]
        for stage in STAGES
        if f"digits-{stage}-{pool}" in names
    }


async def look(bench: Bench, times: int = 1, seconds: float = 0.0) -> None:
    for _ in range(times):
        bench.cluster.clock.now += seconds
        await bench.look()
        bench.nodes.settle()


async def test_pods_of_a_pool_stay_until_those_of_another_are_ready() -> None:
    bench = await served(3)
    bench.nodes.broken = {version(bench)}  # they do not become ready yet
    bench.write(pools={"b": {}})
    await look(bench, 4, 10.0)
    assert there(bench) == {"encoder": 1, "dit": 3, "decoder": 1}
    assert bench.condition("Ready")["status"] == "True"
    progressing = bench.condition("Progressing")
    assert progressing["reason"] == "RemovingPool"
    assert progressing["message"] == (
        "encoder no longer runs on a; its pods stay: no others of encoder are ready yet"
    )
    # Meanwhile nothing is asked again and again.
    bench.calls()
    await look(bench, 5, 2.0)
    assert bench.calls() == []
    bench.restart()
    await look(bench)
    assert there(bench)["dit"] == 3
    bench.nodes.broken = set()
    await bench.settle()
    assert there(bench) == {}
    assert there(bench, "b") == dict.fromkeys(STAGES, 1)
    assert bench.condition("Progressing")["status"] == "False"


async def test_pods_of_a_pool_stay_until_as_many_are_ready_as_have_to_be() -> None:
    bench = await served(3, stages={"dit": {"minReplicas": 2}})
    bench.scaling.wanted |= {("dit", "b"): 1}
    bench.write(pools={"b": {}}, stages={"dit": {"minReplicas": 2}})
    await look(bench, 3)
    assert there(bench) == {"dit": 3}
    bench.scaling.wanted |= {("dit", "b"): 2}
    await look(bench, 5)
    assert there(bench) == {}


async def test_with_another_version_they_stay_for_the_jobs_that_need_them() -> None:
    bench = await served()
    old = version(bench)
    bench.gateways.state = Fleet(2, {("dit", old): 2})
    bench.write(pools={"b": {}}, stages={"dit": {"image": "registry/dit:2"}})
    await look(bench, 4, 2.0)
    # The first waits for nobody, the others for the jobs before and in them.
    assert there(bench) == {"dit": 1, "decoder": 1}
    assert "encoder" in there(bench, "b")
    assert "dit" not in there(bench, "b")
    message = bench.condition("Progressing")["message"]
    assert "its pods stay: 2 jobs of the old version in it or before it" in message
    # By then nobody needs them, whether there are others yet or not.
    bench.gateways.state = Fleet(1, {("decoder", old): 1})
    await look(bench, 4, 2.0)
    assert there(bench) == {"decoder": 1}
    bench.gateways.state = Fleet()
    await bench.settle()
    assert there(bench) == {}
    assert there(bench, "b") == dict.fromkeys(STAGES, 1)


async def test_where_the_budget_has_no_room_for_others_one_goes_after_the_other() -> None:
    bench = await served(3, scaling={"budget": 5})
    bench.scaling.wanted = {(stage, "b"): 0 for stage in STAGES}
    bench.nodes.patient = True
    bench.write(pools={"b": {}}, scaling={"budget": 5})
    await look(bench, 2, 2.0)
    assert there(bench) == {"encoder": 1, "dit": 3, "decoder": 1}
    await look(bench, 1, SETTLE_SECONDS)
    assert there(bench) == {"encoder": 1, "dit": 2, "decoder": 1}
    # Until they are gone, they hold their room: no more has to go.
    await look(bench, 10, 2.0)
    assert there(bench)["dit"] == 2
    bench.nodes.finish()
    bench.scaling.wanted = dict.fromkeys(bench.scaling.wanted, 1)
    await look(bench, 4, 2.0)
    assert there(bench, "b")["dit"] == 1
    bench.nodes.finish()
    await look(bench, 4, 2.0)
    assert there(bench) == {}


async def test_what_is_of_no_use_to_others_stays_while_these_cannot_be_had() -> None:
    bench = await served(2)
    for name in "ab":
        node(bench, name)
    for pod in bench.cluster.all(POD):
        bench.cluster.change(POD, "demo", pod["metadata"]["name"], "spec", "nodeName", value="a")
    bench.scaling.wanted = {(stage, "b"): 0 for stage in STAGES}
    bench.write(pools={"b": {"nodeSelector": {"pool": "b"}}})
    await look(bench, 10, 60.0)
    assert there(bench) == {"encoder": 1, "dit": 2, "decoder": 1}
    # Where others never come they go all the same.
    await look(bench, 2, HALF_AN_HOUR)
    assert there(bench) == {}


@pytest.mark.parametrize("seen", [True, False])
async def test_who_stands_in_the_way_of_others_makes_room_at_once(seen: bool) -> None:
    bench = await served(2)
    if seen:
        node(bench, "node-1", pool="x")
    bench.nodes.broken = {version(bench)}
    bench.nodes.patient = True
    # The same nodes by another name.
    bench.write(pools={"b": {"nodeSelector": {"pool": "x"} if seen else {}}})
    await look(bench, 2, 1.0)
    assert there(bench)["dit"] == 2
    for pod in bench.nodes.pods(component="dit", pool="b"):
        waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        status = {"phase": "Pending", "conditions": [waits]}
        bench.cluster.change(POD, "demo", pod["metadata"]["name"], "status", value=status)
    await look(bench, 3, 1.0)
    assert there(bench)["dit"] == 1


async def test_nobody_waits_for_what_is_not_wanted_elsewhere() -> None:
    stages = {stage: {"minReplicas": 0} for stage in STAGES}
    bench = await served(stages=stages)
    bench.nodes.patient = True
    bench.write(pools={"b": {}}, stages=stages)
    await look(bench)
    assert there(bench) == dict.fromkeys(STAGES, 0)


async def test_pods_that_never_become_ready_are_not_waited_for_for_ever() -> None:
    bench = await served()
    bench.nodes.broken = {version(bench)}
    bench.write(pools={"b": {"provisioningTimeoutSeconds": 600}})
    await look(bench, 2, 1.0)
    await look(bench, 1, HALF_AN_HOUR + 590.0)
    assert there(bench) == dict.fromkeys(STAGES, 1)
    await look(bench, 2, 20.0)
    assert there(bench) == {}


def node(bench: Bench, name: str, pool: str = "") -> None:
    labels = {"pool": pool or name}
    metadata = {"name": name, "uid": name, "labels": labels, "resourceVersion": "9"}
    bench.cache.put(NODE, {"metadata": metadata, "spec": {}, "status": {}})
