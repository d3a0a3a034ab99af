"""Jobs that no gateway that answers knows: nothing is taken away as long as there may be some."""

from __future__ import annotations

import pytest
from bench import Bench
from disagfusion_operator.desired.names import version_of
from disagfusion_operator.k8s.kinds import DEPLOYMENT, PIPELINE, POD
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.reconcile.gateways import Fleet, WorkerReport

STAGES = ("encoder", "dit", "decoder")
NEW = {stage: {"image": f"registry/{stage}:2"} for stage in STAGES}
TWO = {"replicas": 2, "store": {"postgresql": {"urlSecret": {"name": "database", "key": "url"}}}}


async def with_two(**spec: object) -> tuple[Bench, Object, Object]:
    """Return a pipeline whose two gateways have been there for a while, and these."""
    bench = Bench()
    await bench.settle(gateway=TWO, **spec)
    bench.cluster.clock.now += 60
    first, second = bench.nodes.pods(component="gateway")
    return bench, first, second


def door(pod: Object) -> str:
    return f"{pod['status']['podIP']}:7421"


def tell(bench: Bench, pod: Object, *, ready: bool, phase: str = "Running") -> None:
    """Have a pod become ready, or be no longer."""
    now = bench.cluster.clock.text()
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": now}
    status = {**pod["status"], "phase": phase, "conditions": [condition]}
    bench.cluster.change(POD, "demo", pod["metadata"]["name"], "status", value=status)


def version(bench: Bench, stage: str) -> str:
    return version_of(bench.deployment(stage)["spec"]["template"])


async def test_a_gateway_that_was_evicted_holds_up_no_rollout() -> None:
    bench = Bench()
    await bench.settle()
    (gateway,) = bench.nodes.pods(component="gateway")
    tell(bench, gateway, ready=False, phase="Failed")
    await bench.settle()
    assert len(bench.nodes.pods(component="gateway")) == 2
    old = version(bench, "encoder")
    await bench.settle(stages=NEW)
    assert old not in {version(bench, stage) for stage in STAGES}
    assert not bench.scaling.views[-1].hold
    assert bench.status()["state"] == "Ready"


@pytest.mark.parametrize("component", ["dit", "gateway"])
async def test_for_a_pod_that_has_ended_nobody_is_asked_again_and_again(component: str) -> None:
    bench = Bench()
    await bench.settle()
    (pod,) = bench.nodes.pods(component=component)
    tell(bench, pod, ready=False, phase="Failed")
    bench.scaling.report = {"again_after": 60.0}
    await bench.settle()
    asked = bench.gateways.asked
    for _ in range(3):
        bench.cluster.clock.now += 20
        look = await bench.look()
        assert look.again == 30.0
    assert bench.gateways.asked == asked


async def test_the_jobs_of_a_gateway_that_is_not_ready_are_waited_for() -> None:
    bench, first, second = await with_two(deletion={"drainSeconds": 600})
    bench.gateways.known = {door(first): Fleet(), door(second): Fleet(unfinished=30)}
    tell(bench, second, ready=False)
    await bench.cluster.delete(PIPELINE, "demo", "digits")
    await bench.look()
    assert bench.status()["state"] == "Draining"
    assert "a gateway does not answer" in bench.condition("Ready")["message"]
    # The one that answers takes no more.
    assert bench.gateways.admission == {door(first): "the pipeline is being deleted"}
    bench.cluster.clock.now += 60
    tell(bench, second, ready=True)
    await bench.look()
    assert "30 jobs are still under way" in bench.condition("Ready")["message"]
    bench.gateways.known = {}
    bench.cluster.clock.now += 60
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []


async def test_the_jobs_of_a_gateway_that_has_died_are_waited_for_until_another_has_them() -> None:
    bench, first, second = await with_two(deletion={"drainSeconds": 600})
    bench.cluster.remove(POD, "demo", second["metadata"]["name"])
    await bench.cluster.delete(PIPELINE, "demo", "digits")
    await bench.look()
    assert "may not be another's yet" in bench.condition("Ready")["message"]
    bench.cluster.clock.now += 30
    bench.nodes.settle()
    bench.restart()
    await bench.look()
    # Its successor is ready, and knows nothing of them.
    assert len(bench.nodes.pods(component="gateway")) == 2
    assert "may not be another's yet" in bench.condition("Ready")["message"]
    bench.cluster.clock.now += 16
    bench.gateways.known = {door(first): Fleet(unfinished=30)}
    await bench.look()
    assert "30 jobs are still under way" in bench.condition("Ready")["message"]
    bench.gateways.known = {}
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []


async def test_a_gateway_that_never_answers_again_is_not_waited_for_for_ever() -> None:
    bench, _, second = await with_two(deletion={"drainSeconds": 60})
    tell(bench, second, ready=False)
    await bench.cluster.delete(PIPELINE, "demo", "digits")
    bench.cluster.clock.now += 75
    await bench.look()
    assert bench.cluster.names(PIPELINE) == ["digits"]
    bench.cluster.clock.now += 10
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []


async def test_a_gateway_on_a_node_that_is_lost_counts_until_it_should_have_been_gone() -> None:
    bench, _, second = await with_two(deletion={"drainSeconds": 600})
    name = second["metadata"]["name"]
    bench.cluster.change(
        POD, "demo", name, "metadata", "deletionTimestamp", value=bench.cluster.clock.text()
    )
    bench.nodes.patient = True
    bench.nodes.settle()
    await bench.cluster.delete(PIPELINE, "demo", "digits")
    bench.cluster.clock.now += 29
    await bench.look()
    assert "a gateway does not answer" in bench.condition("Ready")["message"]
    bench.cluster.clock.now += 2
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []


async def test_a_rollout_waits_for_the_jobs_of_a_gateway_that_has_died() -> None:
    bench, first, second = await with_two()
    old = version(bench, "dit")
    workers = (WorkerReport("w-dit", ("dit",), old, True),)
    bench.gateways.state = Fleet(workers=workers)
    bench.cluster.remove(POD, "demo", second["metadata"]["name"])
    await bench.settle(gateway=TWO, stages=NEW)
    assert version(bench, "encoder") != old
    assert version(bench, "dit") == old
    bench.cluster.clock.now += 16
    bench.gateways.known = {door(first): Fleet(4, {("dit", old): 4}, workers)}
    await bench.settle()
    assert version(bench, "dit") == old
    assert "4 jobs of the old version" in bench.condition("Progressing")["message"]
    bench.gateways.known = {}
    await bench.settle()
    assert version(bench, "dit") != old


async def test_where_the_gateways_are_taken_away_as_well_nobody_waits_for_another() -> None:
    bench, _, second = await with_two(deletion={"drainSeconds": 600})
    bench.cluster.change(
        DEPLOYMENT, "demo", "digits-gateway", "metadata", "deletionTimestamp", value="2027"
    )
    bench.cluster.remove(POD, "demo", second["metadata"]["name"])
    await bench.cluster.delete(PIPELINE, "demo", "digits")
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []
