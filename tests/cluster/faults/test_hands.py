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


def replicas_are(pipelines: Pipelines, count: int) -> bool:
    return bool(dit(pipelines)["spec"]["replicas"] == count)


def test_a_deployment_is_edited_scaled_and_deleted(pipelines: Pipelines, load: Load) -> None:
    original = dit(pipelines)
    image = original["spec"]["template"]["spec"]["containers"][0]["image"]

    pipelines("set", "image", "deployment/hands-dit-small", "dit=localhost/none:1")
    eventually(
        "the edit is undone",
        20,
        lambda: dit(pipelines)["spec"]["template"]["spec"]["containers"][0]["image"] == image,
    )
    # There and back are two generations.
    assert dit(pipelines)["metadata"]["generation"] >= original["metadata"]["generation"] + 2

    pipelines("scale", "deployment/hands-dit-small", "--replicas=0")
    eventually("the scaling is undone", 40, lambda: replicas_are(pipelines, 2))
    eventually("it is told", 20, lambda: "ReplicasChanged" in pipelines.events("hands"))

    uid = dit(pipelines)["metadata"]["uid"]
    pipelines("delete", "deployment", "hands-dit-small", "--wait=false")
    eventually(
        "it is made again, with as many replicas",
        40,
        lambda: dit(pipelines)["metadata"]["uid"] != uid and replicas_are(pipelines, 2),
    )
    assert pipelines.settled("hands")["ratio"] == "1:2:1"
    load.check()


def test_another_autoscaler_is_put_on_a_deployment(pipelines: Pipelines, load: Load) -> None:
    pipelines(
        "autoscale", "deployment", "hands-dit-small", "--min=1", "--max=5", "--cpu-percent=80"
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
    assert "Conflict" in pipelines.events("hands")
    # As an autoscaler does, time and again: it is let alone.
    pipelines("scale", "deployment/hands-dit-small", "--replicas=3")
    load.wait_ended(10, 60)
    eventually("three work", 60, lambda: pipelines.status("hands")["stages"]["dit"]["ready"] == 3)
    assert replicas_are(pipelines, 3)

    pipelines("delete", "hpa", "hands-dit-small")
    eventually(
        "the conflict is over",
        30,
        lambda: pipelines.condition("hands", "Conflict").get("status") == "False",
    )
    eventually("the budget holds again", 60, lambda: replicas_are(pipelines, 2))
    load.check()
