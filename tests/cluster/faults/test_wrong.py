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
        load.assert_busy()
        # Those that are past the encoder end; behind it everything is as it was.
        pipelines.write(two("image"))
        pipelines.settled("image")
        assert not pipelines.condition("image", "Degraded")["status"] == "True"
        load.check()


def test_a_model_is_changed_to_one_that_there_is_not(
    cluster: Cluster, pipelines: Pipelines
) -> None:
    """Of a pipeline that works: its jobs end."""
    right = two("turned")
    pipelines.write(right)
    pipelines.settled("turned")
    cluster.kubectl.apply([claim("models")], "-n", pipelines.namespace)
    wrong = two(
        "turned", stages={stage: {"image": image(pipelines, "turned")} for stage in SECONDS}
    )
    wrong["spec"]["model"] = {"volume": {"claimName": "models", "path": "flux/none"}}
    with Load(address_of(pipelines, "turned")) as load:
        load.wait_busy()
        pipelines.write(wrong)
        eventually(
            "the condition says so",
            _TELLING_SECONDS,
            lambda: degraded(pipelines, "turned", "WeightsUnavailable", "flux/none"),
        )
        load.assert_busy()
        assert "WeightsUnavailable" in pipelines.events("turned")
        pipelines.write(right)
        pipelines.settled("turned")
        assert not pipelines.condition("turned", "Degraded")["status"] == "True"
        load.check()


def image(pipelines: Pipelines, name: str) -> str:
    """Return the image of a pipeline's stages."""
    pod = pipelines.json("get", "pod", next(iter(pipelines.pods(name, "dit"))))
    return str(pod["spec"]["containers"][0]["image"])


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
    cluster.kubectl.apply([claim("models")], "-n", pipelines.namespace)
    with Load(address_of(pipelines, "works")) as load:
        load.wait_busy()
        # Fetching needs nothing that only the large images have.
        stages = {stage: {**SMALL, "image": image(pipelines, "works")} for stage in SECONDS}
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
        load.assert_busy()
        load.check()
    assert pipelines.pods("works") == pods
