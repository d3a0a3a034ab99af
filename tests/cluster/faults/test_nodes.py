"""Nodes that are drained, and nodes that are cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.faults.load import Load, two
from tests.cluster.operator.pipelines import SECONDS, Pipelines, eventually
from tests.cluster.testing import Cluster
from tools.cluster import faults, images

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


def missed(cluster: Cluster, node: str) -> None:
    """Wait until a node has not been heard of for long enough."""
    cluster.kubectl(
        "wait", "--for=condition=Ready=Unknown", f"node/{node}", "--timeout=90s", seconds=100
    )


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
        load.assert_busy()
        missed(cluster, node)
        if not gateway:
            # The others do it all.
            load.wait_ended(10, 90)
        faults.heal(cluster.layout, node)
        cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=60s")
        jobs = load.check()
    # It came back before its pods were given up.
    assert pipelines.pods("cut") == before
    assert any(job.attempt > 1 for job in jobs), "nothing was lost between the nodes"


def test_a_node_comes_back_after_its_pods_were_given_up(
    cluster: Cluster, pipelines: Pipelines, choose: Callable[[str, bool], str]
) -> None:
    """Its workers, which nobody could tell to end, are there again beside those in their place."""
    gone = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    pools = {"small": {"tolerations": [{**gone, "tolerationSeconds": 5}]}}
    pipelines.write(two("ghosts", stages=_TWICE, pools=pools))
    pipelines.settled("ghosts")
    node = choose("ghosts", False)
    before = pipelines.pods("ghosts")
    ghosts = {pod for pod, where in nodes_of(pipelines, "ghosts").items() if where == node}
    with Load(address_of_pod(pipelines, "ghosts")) as load:
        load.wait_busy()
        faults.partition(cluster.layout, node)
        load.assert_busy()
        missed(cluster, node)
        eventually("they are given up", 60, lambda: not ghosts & set(pipelines.pods("ghosts")))
        eventually(
            "others take their place", 60, lambda: len(pipelines.pods("ghosts")) == len(before)
        )
        pipelines.settled("ghosts")
        # On their node they run.
        running = images.ctr(cluster.layout, node, "tasks", "ls")
        assert running.count("RUNNING") >= 2 * len(ghosts), "a container and a sandbox for each"
        load.wait_ended(10, 60)
        load.assert_busy()
        faults.heal(cluster.layout, node)
        cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=60s")
        chosen = "disagfusion.dev/pipeline=ghosts"

        def left() -> set[str]:
            """Return those that are there, also if they are about to end."""
            items = pipelines.json("get", "pods", "-l", chosen)["items"]
            return {one["metadata"]["name"] for one in items} & ghosts

        assert left(), "they had gone before the node came back"
        eventually("they are ended", 120, lambda: not left())
        load.wait_ended(5, 60)
        jobs = load.check()
    assert any(job.attempt > 1 for job in jobs), "nothing was lost with the node"
    assert len(pipelines.pods("ghosts")) == len(before)
    assert not ghosts & set(pipelines.pods("ghosts"))
