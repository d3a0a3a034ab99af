"""Nodes with accelerators that nobody has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.testing import Cluster, Namespace
from tools.cluster import objects

POOL = "tests-h100"


@pytest.fixture(scope="module")
def pool(cluster: Cluster) -> Iterator[list[str]]:
    """Two fake nodes with four accelerators each."""
    yield objects.add_fake_nodes(cluster.kubectl, POOL, 2, 4)
    objects.remove_fake_nodes(cluster.kubectl, POOL)


@pytest.mark.smoke
def test_pods_run_on_fake_accelerators_until_there_are_no_more(
    namespace: Namespace, pool: list[str], until: Callable[..., None]
) -> None:
    labels = {"app": "fake"}
    container = {
        "name": "main",
        "image": "example.invalid/none:1",
        "resources": {"limits": {"nvidia.com/gpu": 1}},
    }
    pod = {
        "nodeSelector": {"disagfusion.dev/pool": POOL},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        "containers": [container],
    }
    namespace.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "fake"},
            "spec": {
                "replicas": 10,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
    )

    def phases() -> dict[str, int]:
        found = [item["status"]["phase"] for item in namespace.pods("app=fake")]
        return {phase: found.count(phase) for phase in set(found)}

    until("8 of 10 pods", 60, lambda: phases() == {"Running": 8, "Pending": 2})

    def refused() -> bool:
        events = namespace.json("get", "events", "--field-selector=reason=FailedScheduling")
        return any("Insufficient nvidia.com/gpu" in item["message"] for item in events["items"])

    until("the scheduler's reason", 30, refused)
    deployment = namespace.json("get", "deployment", "fake")
    assert deployment["status"]["availableReplicas"] == 8
    namespace("scale", "deployment", "fake", "--replicas=3")
    until("3 pods", 60, lambda: phases() == {"Running": 3})
    assert {item["spec"]["nodeName"] for item in namespace.pods("app=fake")} <= set(pool)
