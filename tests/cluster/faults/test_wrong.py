"""What cannot run is told within half a minute, and costs no job that is under way."""

from __future__ import annotations

from typing import Any

from tests.cluster.faults.load import Load, address_of, two
from tests.cluster.operator.pipelines import SECONDS, SMALL, Pipelines, eventually
from tests.cluster.testing import Cluster

_TELLING_SECONDS = 30


def degraded(pipelines: Pipelines, name: str, reason: str, *words: str) -> bool:
    found = pipelines.condition(name, "Degraded")
    return (
        found.get("status") == "True"
        and found["reason"] == reason
        and all(word in found["message"] for word in words)
    )


def test_an_image_that_there_is_not(pipelines: Pipelines) -> None:
    pipelines.write(two("image"))
    pipelines.settled("image")
    with Load(address_of(pipelines, "image")) as load:
        load.wait_busy()
        wrong = {stage: {"image": "localhost/none:1"} for stage in SECONDS}
        pipelines.write(two("image", stages=wrong))
        eventually(
            "the condition says so",
            _TELLING_SECONDS,
            lambda: degraded(pipelines, "image", "ImageUnavailable", "encoder", "localhost/none:1"),
        )
        assert "ImageUnavailable" in pipelines.events("image")
        # Those that are past the encoder end; behind it everything is as it was.
        pipelines.write(two("image"))
        pipelines.settled("image")
        assert not pipelines.condition("image", "Degraded")["status"] == "True"
        load.check()


def claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def test_a_model_that_there_is_not(cluster: Cluster, pipelines: Pipelines) -> None:
    pipelines.write(two("works"))
    pipelines.settled("works")
    pods = pipelines.pods("works")
    image = pipelines.json("get", "pod", next(iter(pipelines.pods("works", "dit"))))["spec"][
        "containers"
    ][0]["image"]
    cluster.kubectl.apply([claim("models")], "-n", pipelines.namespace)
    with Load(address_of(pipelines, "works")) as load:
        load.wait_busy()
        # Fetching needs nothing that only the large images have.
        stages = {stage: {**SMALL, "image": image} for stage in SECONDS}
        pipelines.write(
            {
                "apiVersion": "disagfusion.dev/v1alpha1",
                "kind": "DiffusionPipeline",
                "metadata": {"name": "wrong"},
                "spec": {
                    "model": {"volume": {"claimName": "models", "path": "flux/none"}},
                    "pools": {"small": {}},
                    "stages": stages,
                },
            }
        )
        eventually(
            "the condition says so",
            _TELLING_SECONDS,
            lambda: degraded(pipelines, "wrong", "WeightsUnavailable", "flux/none"),
        )
        assert "WeightsUnavailable" in pipelines.events("wrong")
        load.check()
    assert pipelines.pods("works") == pods
