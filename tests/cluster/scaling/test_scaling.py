"""Replicas in a cluster with real controllers, and accelerators that nobody has."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.kuberneteskit.pods import PodWatch

from .conftest import Space

pytestmark = pytest.mark.timeout(300)


def owners(space: Space, name: str) -> list[tuple[str, str]]:
    """Return who manages the replicas of a Deployment, and how."""
    found = space.json("get", "deployment", name, "--show-managed-fields")
    return [
        (one["manager"], one.get("subresource", ""))
        for one in found["metadata"]["managedFields"]
        if "f:replicas" in one["fieldsV1"].get("f:spec", {})
    ]


@pytest.mark.smoke
def test_the_plan_is_carried_out_and_changes_by_hand_are_put_right(space: Space) -> None:
    space.pipeline("p", budget=8)
    space.until("the whole budget", 60, lambda: space.ratio("p") == "1:6:1")
    space.until("eight pods", 60, lambda: len(space.pods("p")) == 8)
    assert owners(space, "p-dit-gpus") == [("disagfusion-balancer", "scale")]

    space("scale", "deployment/p-dit-gpus", "--replicas=2")
    space.until(
        "an event of it", 60, lambda: any(one == "ReplicasChanged" for one, _ in space.events("p"))
    )
    space.until("six again", 60, lambda: space.ratio("p") == "1:6:1")
    assert owners(space, "p-dit-gpus") == [("disagfusion-balancer", "scale")]
    told = next(message for reason, message in space.events("p") if reason == "ReplicasChanged")
    assert "dit on gpus: kubectl asked for 2" in told


def test_room_changes_hands_within_the_pool_whoever_is_killed_meanwhile(space: Space) -> None:
    space.pipeline("p", budget=8)
    space.until("the whole pool", 60, lambda: len(space.pods("p")) == 8)
    with PodWatch(space.kubectl.kubeconfig, space.name, "nvidia.com/gpu") as watch:
        # Another one comes: its minima have to be given away by the first.
        space.pipeline("q")
        space.until("the first gives away", 60, lambda: space.ratio("p") != "1:6:1")
        space.operator.kill()
        space.operator.start()
        space.until("minima of the other", 90, lambda: len(space.pods("q")) == 3)
        assert space.ratio("q") == "1:1:1"
        space.pipeline("p", budget=3)
        space.until("three", 90, lambda: len(space.pods("p")) == 3)
        space("delete", "dfp", "p", "--wait=false")
        space.until("it is gone", 90, lambda: not space.pods("p"))
    assert watch.most_held == 8


def test_what_finds_no_node_is_taken_back(space: Space) -> None:
    late = {"provisioning": "Autoscaled", "provisioningTimeoutSeconds": 15, "capacity": 12}
    space.pipeline("p", late, budget=12)
    space.until("twelve are asked for", 60, lambda: len(space.pods("p")) == 12)
    space.until("four are taken back", 90, lambda: len(space.pods("p")) == 8)
    limited = space.until(
        "it is said",
        30,
        lambda: (found := space.condition("p", "ScalingLimited")).get("status") == "True" and found,
    )
    assert limited["reason"] == "PoolFull"
    assert any(reason == "PoolFull" for reason, _ in space.events("p"))
    assert min(map(int, space.ratio("p").split(":"))) >= 1


def test_a_quota_is_recognised_where_no_pod_appears(space: Space) -> None:
    space.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "few"},
            "spec": {"hard": {"requests.nvidia.com/gpu": "5"}},
        }
    )
    space.pipeline("p", budget=8)
    space.until(
        "the quota is recognised",
        120,
        lambda: any(reason == "QuotaRefused" for reason, _ in space.events("p")),
    )
    space.until("five stay", 60, lambda: sum(map(int, space.ratio("p").split(":"))) == 5)
    told = next(message for reason, message in space.events("p") if reason == "QuotaRefused")
    assert "exceeded quota" in told


def test_another_autoscaler_is_left_alone(space: Space) -> None:
    space.pipeline("p", budget=8)
    space.until("the whole budget", 60, lambda: space.ratio("p") == "1:6:1")
    other: dict[str, Any] = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "other"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "p-dit-gpus"},
            "minReplicas": 1,
            # It needs no metrics to see that there are more.
            "maxReplicas": 3,
        },
    }
    space.apply(other)
    conflict = space.until(
        "a conflict",
        60,
        lambda: (found := space.condition("p", "Conflict")).get("status") == "True" and found,
    )
    assert "HorizontalPodAutoscaler other" in conflict["message"]
    space.until("it has its way", 90, lambda: space.ratio("p") == "1:3:1")
    space("delete", "hpa", "other")
    space.until(
        "no conflict", 60, lambda: space.condition("p", "Conflict").get("status") == "False"
    )
