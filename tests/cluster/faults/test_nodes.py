"""Nodes that are drained, and nodes that are cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.faults.load import Load, two
from tests.cluster.operator.pipelines import SECONDS, Pipelines
from tests.cluster.testing import Cluster
from tools.cluster import faults

_TWICE = {stage: {"minReplicas": 2} for stage in SECONDS}


def nodes_of(pipelines: Pipelines, name: str, component: str = "") -> dict[str, str]:
    """Return the node of each pod of a pipeline."""
    return {
        pod: pipelines.json("get", "pod", pod)["spec"]["nodeName"]
        for pod in pipelines.pods(name, component)
    }


@pytest.fixture
def choose(cluster: Cluster, pipelines: Pipelines) -> Iterator[Callable[[str, bool], str]]:
    """Choose a node with workers: `choose(pipeline, gateway)`, that of the gateway or another.

    Afterwards it is as it was.
    """
    chosen: list[str] = []

    def choice(name: str, gateway: bool) -> str:
        (door,) = nodes_of(pipelines, name, "gateway").values()
        (node,) = [one for one in cluster.nodes[:2] if (one == door) == gateway]
        assert any(
            where == node
            for stage in SECONDS
            for where in nodes_of(pipelines, name, stage).values()
        ), f"nothing works on {node}"
        chosen.append(node)
        return node

    yield choice
    for node in chosen:
        cluster.kubectl("uncordon", node)
        if node in faults.partitioned(cluster.layout):
            faults.heal(cluster.layout, node)
        cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=60s")


def address_of_pod(pipelines: Pipelines, name: str) -> str:
    """Return the address of the gateway itself: services are reached through a node."""
    (pod,) = pipelines.pods(name, "gateway")
    return f"{pipelines.json('get', 'pod', pod)['status']['podIP']}:7420"


def address_of_service(pipelines: Pipelines, name: str) -> str:
    return f"{pipelines.json('get', 'service', name)['spec']['clusterIP']}:7420"


@pytest.mark.parametrize("gateway", [False, True], ids=["of workers", "of the gateway"])
def test_a_node_is_drained(
    cluster: Cluster, pipelines: Pipelines, choose: Callable[[str, bool], str], gateway: bool
) -> None:
    pipelines.write(two("drained", stages=_TWICE))
    pipelines.settled("drained")
    node = choose("drained", gateway)
    before = pipelines.pods("drained")
    leaving = {
        before[pod] for pod, where in nodes_of(pipelines, "drained").items() if where == node
    }
    with Load(address_of_service(pipelines, "drained")) as load:
        load.wait_busy()
        cluster.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=150s",
            seconds=160,
        )  # fmt: skip
        assert cluster.kubectl.json("get", "node", node)["spec"]["unschedulable"] is True
        assert not leaving & set(pipelines.pods("drained").values())
        pipelines.settled("drained")
        assert node not in nodes_of(pipelines, "drained").values()
        load.wait_ended(5, 60)
        load.check()


@pytest.mark.parametrize("gateway", [False, True], ids=["of workers", "of the gateway"])
def test_a_node_is_cut_off(
    cluster: Cluster, pipelines: Pipelines, choose: Callable[[str, bool], str], gateway: bool
) -> None:
    pipelines.write(two("cut", stages=_TWICE))
    pipelines.settled("cut")
    node = choose("cut", gateway)
    before = pipelines.pods("cut")
    with Load(address_of_pod(pipelines, "cut")) as load:
        load.wait_busy()
        faults.partition(cluster.layout, node)
        assert faults.partitioned(cluster.layout) == [node]
        cluster.kubectl(
            "wait", "--for=condition=Ready=Unknown", f"node/{node}", "--timeout=90s", seconds=100
        )
        if not gateway:
            # The others do it all.
            load.wait_ended(10, 90)
        faults.heal(cluster.layout, node)
        cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=60s")
        jobs = load.check()
    # It came back before its pods were given up.
    assert pipelines.pods("cut") == before
    if not gateway:
        assert any(job.attempt > 1 for job in jobs), "nothing was lost with the node"
