"""New versions of what runs, with an operator that stays and one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from disagfusion.client import Job
from tests.cluster.faults.load import Load, address_of, met, two
from tests.cluster.operator.pipelines import SECONDS, Installation, Pipelines, eventually
from tests.cluster.testing import Cluster
from tools.cluster import images

_OTHER = "localhost/disagfusion-emulated:other"


def renamed(cluster: Cluster, pipelines: Pipelines, name: str) -> str:
    """Give the image of a pipeline's stages a second name in every node, and return it."""
    pod = next(iter(pipelines.pods(name, "dit")))
    image = pipelines.json("get", "pod", pod)["spec"]["containers"][0]["image"]
    for node in cluster.nodes:
        images.ctr(cluster.layout, node, "images", "tag", "--force", image, _OTHER)
    return _OTHER


def stage_pods(pipelines: Pipelines, name: str) -> dict[str, str]:
    return {pod: uid for stage in SECONDS for pod, uid in pipelines.pods(name, stage).items()}


def with_image(name: str, image: str) -> dict[str, Any]:
    return two(name, stages={stage: {"image": image} for stage in SECONDS})


def rolls(pipelines: Pipelines, name: str) -> bool:
    return bool(pipelines.condition(name, "Progressing").get("reason") == "RollingOut")


def compare_versions(jobs: Sequence[Job], versions: dict[str, str]) -> None:
    """No job has met two versions, and both have been met."""
    found = [met(job, versions) for job in jobs]
    assert all(len(one) == 1 for one in found)
    assert len(set().union(*found)) == 2


def replaced(pipelines: Pipelines, name: str, before: dict[str, str], image: str) -> None:
    """All pods of stages are new ones with the image."""
    after = stage_pods(pipelines, name)
    assert not set(before.values()) & set(after.values())
    for pod in after:
        assert pipelines.json("get", "pod", pod)["spec"]["containers"][0]["image"] == image


def test_an_image_is_changed(cluster: Cluster, pipelines: Pipelines) -> None:
    pipelines.write(two("images"))
    pipelines.settled("images")
    other = renamed(cluster, pipelines, "images")
    before, gateway = stage_pods(pipelines, "images"), pipelines.pods("images", "gateway")
    versions = pipelines.versions("images")
    with Load(address_of(pipelines, "images")) as load:
        load.wait_busy()
        pipelines.write(with_image("images", other))
        eventually("it rolls out", 20, lambda: rolls(pipelines, "images"))
        pipelines.settled("images", 240)
        load.wait_ended(5, 60)
        jobs = load.check()
    replaced(pipelines, "images", before, other)
    assert pipelines.pods("images", "gateway") == gateway
    compare_versions(jobs, {**versions, **pipelines.versions("images")})


def test_the_operator_is_killed_in_the_middle_of_a_rollout(
    cluster: Cluster, pipelines: Pipelines, installation: Installation
) -> None:
    pipelines.write(two("killed"))
    pipelines.settled("killed")
    other = renamed(cluster, pipelines, "killed")
    before, versions = stage_pods(pipelines, "killed"), pipelines.versions("killed")
    first = installation.leader()
    with Load(address_of(pipelines, "killed")) as load:
        load.wait_busy()
        pipelines.write(with_image("killed", other))
        eventually("it rolls out", 20, lambda: rolls(pipelines, "killed"))
        installation.kill(first)
        # Some stage still has its old pods: it was in the middle.
        assert set(before) & set(stage_pods(pipelines, "killed"))
        assert rolls(pipelines, "killed")
        eventually("another leads", 90, lambda: installation.leader() not in ("", first))
        pipelines.settled("killed", 240)
        load.wait_ended(5, 60)
        jobs = load.check()
    replaced(pipelines, "killed", before, other)
    compare_versions(jobs, {**versions, **pipelines.versions("killed")})


def test_the_chart_is_upgraded(release: Installation, pipelines: Pipelines) -> None:
    pipelines.write(two("upgraded"))
    pipelines.settled("upgraded")
    pods, operators = pipelines.pods("upgraded"), release.pods()
    with Load(address_of(pipelines, "upgraded")) as load:
        load.wait_busy()
        release.install(
            operator={"logLevel": "debug", "podLabels": {"more": "yes"}},
            commonLabels={"more": "yes"},
        )
        eventually("new operators", 60, lambda: not set(release.pods()) & set(operators))
        eventually("one of them leads", 60, lambda: release.leader() in release.pods())
        # It has had a look: what is changed now is acted on.
        pipelines.patch("upgraded", {"spec": {"deletion": {"drainSeconds": 61}}})
        pipelines.settled("upgraded")
        load.check()
    assert pipelines.pods("upgraded") == pods
