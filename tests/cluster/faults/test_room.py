"""A pool that has less room than was asked for."""

from __future__ import annotations

from typing import Any

from tests.cluster.faults.load import Load, address_of, two
from tests.cluster.operator.pipelines import Pipelines, eventually
from tests.cluster.testing import Cluster

_NAME = "room"


def apart(replicas: int, budget: int) -> dict[str, Any]:
    """Return a pipeline no two DiTs of which fit on a node."""
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {
            "matchLabels": {
                "disagfusion.dev/pipeline": _NAME,
                "app.kubernetes.io/component": "dit",
            }
        },
    }
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return two(
        _NAME,
        pools={"small": {"provisioningTimeoutSeconds": 10}},
        stages={
            "encoder": {"maxReplicas": 1},
            "dit": {"minReplicas": replicas, "podTemplate": {"spec": {"affinity": affinity}}},
            "decoder": {"maxReplicas": 1},
        },
        scaling={"mode": "Auto", "budget": budget},
    )


def waiting(pipelines: Pipelines) -> list[str]:
    """Return the DiTs that no node has been found for."""
    items = pipelines.json("get", "pods", "-l", f"disagfusion.dev/pipeline={_NAME}")["items"]
    return [
        one["metadata"]["name"]
        for one in items
        for condition in one["status"].get("conditions", ())
        if condition["type"] == "PodScheduled"
        and condition["status"] == "False"
        and condition["reason"] == "Unschedulable"
        and "deletionTimestamp" not in one["metadata"]
    ]


def test_a_pod_waits_for_a_node_and_is_given_up(cluster: Cluster, pipelines: Pipelines) -> None:
    nodes = len(cluster.nodes)
    pipelines.write(apart(nodes, nodes + 2))
    pipelines.settled(_NAME)
    pods = pipelines.pods(_NAME)
    with Load(address_of(pipelines, _NAME)) as load:
        load.wait_busy()
        pipelines.write(apart(nodes + 1, nodes + 3))
        (name,) = eventually("one waits for a node", 30, lambda: waiting(pipelines))
        load.assert_busy()
        limited = eventually(
            "the pool counts as full",
            60,
            lambda: (
                (found := pipelines.condition(_NAME, "ScalingLimited")).get("reason") == "PoolFull"
                and found
            ),
        )
        assert limited["status"] == "True"
        assert "small" in limited["message"]
        assert "PoolFull" in pipelines.events(_NAME)
        eventually("it is given up", 30, lambda: name not in pipelines.pods(_NAME))
        load.check()
    assert not waiting(pipelines)
    assert pipelines.pods(_NAME) == pods
