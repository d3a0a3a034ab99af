"""What tools/cluster can break and mend, and that pods and controllers take it as they should."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.testing import Cluster, Namespace, archive, container
from tools.cluster import faults, objects
from tools.cluster.errors import ClusterError


@pytest.fixture(scope="module", autouse=True)
def own(cluster: Cluster) -> None:
    """Only nodes of tools/cluster can be cut off from here."""
    assert cluster.own, "unset KUBECONFIG: another's cluster is not broken"
    cluster.load(archive(cluster.layout))


@pytest.fixture
def pod(cluster: Cluster, namespace: Namespace) -> Iterator[str]:
    """A pod on the first node with two accelerators that it does not have."""
    node = cluster.nodes[0]
    objects.set_resource(cluster.kubectl, node, "nvidia.com/gpu", 2)
    objects.set_labels(cluster.kubectl, node, ["disagfusion.dev/pool=tests"])
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "accelerated"},
            "spec": {
                "nodeSelector": {"disagfusion.dev/pool": "tests"},
                "containers": [container(resources={"limits": {"nvidia.com/gpu": 2}})],
            },
        }
    )
    namespace("wait", "--for=condition=Ready", "pod/accelerated", "--timeout=60s")
    yield "accelerated"
    namespace("delete", "pod", "accelerated", "--now")
    objects.set_labels(cluster.kubectl, node, ["disagfusion.dev/pool-"])
    objects.set_resource(cluster.kubectl, node, "nvidia.com/gpu", 0)


def test_an_accelerator_that_nobody_has_runs_a_real_pod(
    cluster: Cluster, namespace: Namespace, pod: str
) -> None:
    assert namespace.json("get", "pod", pod)["spec"]["nodeName"] == cluster.nodes[0]


def test_pods_go_on_while_the_api_server_is_away(
    cluster: Cluster, namespace: Namespace, pod: str
) -> None:
    before = namespace.json("get", "pod", pod)["status"]["containerStatuses"][0]["containerID"]
    faults.stop_apiserver(cluster.layout)
    try:
        assert not cluster.kubectl.succeeds("get", "--raw", "/readyz", seconds=10)
        with pytest.raises(ClusterError, match="does not run"):
            faults.stop_apiserver(cluster.layout)
    finally:
        faults.start_apiserver(cluster.layout)
    status = namespace.json("get", "pod", pod)["status"]["containerStatuses"][0]
    assert (status["containerID"], status["restartCount"]) == (before, 0)


def test_an_api_server_that_hangs_goes_on_where_it_was(cluster: Cluster) -> None:
    faults.stop_apiserver(cluster.layout, freeze=True)
    try:
        assert not cluster.kubectl.succeeds("get", "--raw", "/readyz", "--request-timeout=2s")
    finally:
        faults.start_apiserver(cluster.layout)
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


def test_a_node_that_is_cut_off_is_not_ready_until_it_is_joined_again(
    cluster: Cluster, until: Callable[..., None]
) -> None:
    node = cluster.nodes[-1]
    ready = f"--for=condition=Ready=%s node/{node} --timeout=90s"
    faults.partition(cluster.layout, node)
    try:
        assert faults.partitioned(cluster.layout) == [node]
        cluster.kubectl("wait", *(ready % "Unknown").split(), seconds=100)
    finally:
        faults.heal(cluster.layout, node)
    assert faults.partitioned(cluster.layout) == []
    cluster.kubectl("wait", *(ready % "True").split(), seconds=100)


def test_a_node_that_there_is_not_is_named(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="no real node node77; there are node1, node2"):
        faults.partition(cluster.layout, "node77")
