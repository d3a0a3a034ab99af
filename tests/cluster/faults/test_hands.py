"""People who change, scale and delete what is the operator's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.faults.load import Load, address_of, two
from tests.cluster.operator.pipelines import Pipelines, eventually

BALANCED = {"mode": "Auto", "budget": 4}
"""Without a Prometheus the ratio stays what it is at first: 1:2:1."""


@pytest.fixture
def load(pipelines: Pipelines) -> Iterator[Load]:
    """Jobs of a balanced pipeline."""
    pipelines.write(two("hands", scaling=BALANCED))
    pipelines.settled("hands")
    assert pipelines.status("hands")["ratio"] == "1:2:1"
    with Load(address_of(pipelines, "hands")) as load:
        load.wait_busy()
        yield load


def dit(pipelines: Pipelines) -> dict[str, Any]:
    return pipelines.json("get", "deployment", "hands-dit-small")


def workers(pipelines: Pipelines) -> dict[str, str]:
    return pipelines.pods("hands", "dit")


def come_anew(pipelines: Pipelines, before: dict[str, str]) -> bool:
    """Whether two others work, and none of those that did."""
    now = workers(pipelines)
    ready = pipelines.status("hands")["stages"]["dit"]["ready"]
    return len(now) == ready == 2 and not set(now.values()) & set(before.values())


def replicas_are(pipelines: Pipelines, count: int) -> bool:
    return bool(dit(pipelines)["spec"]["replicas"] == count)


def test_a_deployment_is_edited_scaled_and_deleted(pipelines: Pipelines, load: Load) -> None:
    original = dit(pipelines)
    image = original["spec"]["template"]["spec"]["containers"][0]["image"]

    load.assert_busy()
    pipelines("set", "image", "deployment/hands-dit-small", "dit=localhost/none:1")
    eventually(
        "the edit is undone",
        20,
        lambda: dit(pipelines)["spec"]["template"]["spec"]["containers"][0]["image"] == image,
    )
    # There and back are two generations.
    assert dit(pipelines)["metadata"]["generation"] >= original["metadata"]["generation"] + 2

    pipelines.settled("hands")
    before = workers(pipelines)
    load.assert_busy()
    pipelines("scale", "deployment/hands-dit-small", "--replicas=0")
    eventually("the scaling is undone", 40, lambda: replicas_are(pipelines, 2))
    eventually("it is told", 20, lambda: "ReplicasChanged" in pipelines.events("hands"))
    eventually("pods went, and others came", 60, lambda: come_anew(pipelines, before))

    uid, before = dit(pipelines)["metadata"]["uid"], workers(pipelines)
    load.assert_busy()
    pipelines("delete", "deployment", "hands-dit-small", "--wait=false")
    eventually(
        "it is made again, with as many replicas",
        40,
        lambda: dit(pipelines)["metadata"]["uid"] != uid and replicas_are(pipelines, 2),
    )
    eventually("pods went, and others came", 60, lambda: come_anew(pipelines, before))
    assert pipelines.settled("hands")["ratio"] == "1:2:1"
    load.check()


def test_another_autoscaler_is_put_on_a_deployment(pipelines: Pipelines, load: Load) -> None:
    """The HorizontalPodAutoscaler acts: that there are too few it sees without any metrics."""
    load.assert_busy()
    pipelines(
        "autoscale", "deployment", "hands-dit-small", "--min=3", "--max=5", "--cpu-percent=80"
    )
    conflict = eventually(
        "the conflict is told",
        30,
        lambda: (
            (found := pipelines.condition("hands", "Conflict")).get("status") == "True" and found
        ),
    )
    assert conflict["reason"] == "OtherAutoscaler"
    assert "HorizontalPodAutoscaler hands-dit-small" in conflict["message"]
    eventually("an event says so", 10, lambda: "OtherAutoscaler" in pipelines.events("hands"))
    eventually("it has its way", 60, lambda: replicas_are(pipelines, 3))
    eventually("three work", 60, lambda: pipelines.status("hands")["stages"]["dit"]["ready"] == 3)
    # It is let alone.
    load.wait_ended(20, 60)
    assert replicas_are(pipelines, 3)

    load.assert_busy()
    pipelines("delete", "hpa", "hands-dit-small")
    eventually(
        "the conflict is over",
        30,
        lambda: pipelines.condition("hands", "Conflict").get("status") == "False",
    )
    eventually("the budget holds again", 60, lambda: replicas_are(pipelines, 2))
    load.check()
