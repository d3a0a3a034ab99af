"""New versions of what runs, with an operator that stays and one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from disagfusion.client import Job
from disagfusion.version import __version__
from tests.cluster.conftest import IMAGES
from tests.cluster.faults.load import Load, address_of, met, two
from tests.cluster.operator.pipelines import (
    SECONDS,
    SYSTEM,
    Installation,
    Pipelines,
    eventually,
    state_of,
)
from tests.cluster.testing import Cluster
from tools.cluster import images

_TAG = "next"


def renamed(cluster: Cluster, pipelines: Pipelines, name: str) -> str:
    """Give the image of a pipeline's stages a second name in every node, and return it."""
    pod = next(iter(pipelines.pods(name, "dit")))
    image = pipelines.json("get", "pod", pod)["spec"]["containers"][0]["image"]
    repository, _, tag = image.rpartition(":")
    tagged(cluster, repository, tag, "other")
    return f"{repository}:other"


def tagged(cluster: Cluster, repository: str, tag: str, other: str) -> None:
    """Give an image a second tag in every node."""
    for node in cluster.nodes:
        names = f"{repository}:{tag}", f"{repository}:{other}"
        images.ctr(cluster.layout, node, "images", "tag", "--force", *names)


def stage_pods(pipelines: Pipelines, name: str) -> dict[str, str]:
    return {pod: uid for stage in SECONDS for pod, uid in pipelines.pods(name, stage).items()}


def both_versions(pipelines: Pipelines, name: str, before: dict[str, str]) -> bool:
    """Whether pods of the old version are there, and of the new one."""
    now, old = set(stage_pods(pipelines, name).values()), set(before.values())
    return bool(now & old) and bool(now - old)


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
    pod, holder = installation.leader(), installation.holder()
    begun = state_of(cluster.kubectl, SYSTEM, pod)["restartCount"]
    with Load(address_of(pipelines, "killed")) as load:
        load.wait_busy()
        pipelines.write(with_image("killed", other))
        eventually("it is in the middle", 60, lambda: both_versions(pipelines, "killed", before))
        load.assert_busy()
        installation.kill(pod)
        assert installation.holder() == holder, "it was handed over: that was no crash"
        assert both_versions(pipelines, "killed", before), "it was over before"
        load.assert_busy()
        eventually("another leads", 90, lambda: installation.holder() not in ("", holder))
        assert state_of(cluster.kubectl, SYSTEM, pod)["restartCount"] == begun + 1
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


def test_the_chart_is_upgraded_to_other_images(
    cluster: Cluster, release: Installation, pipelines: Pipelines
) -> None:
    """The usual upgrade: operator, gateways, and stages that name no image of their own."""
    pipelines.write(two("moved"))
    pipelines.settled("moved")
    for name in IMAGES:
        tagged(cluster, f"localhost/disagfusion-{name}", __version__, _TAG)
    before, gateway = stage_pods(pipelines, "moved"), pipelines.pods("moved", "gateway")
    versions, operators = pipelines.versions("moved"), release.pods()
    with Load(address_of(pipelines, "moved")) as load:
        load.wait_busy()
        release.install(tag=_TAG)
        load.assert_busy()
        eventually("new operators", 60, lambda: not set(release.pods()) & set(operators))
        eventually("one of them leads", 60, lambda: release.leader() in release.pods())
        eventually(
            "it rolls out", 60, lambda: not set(before) & set(stage_pods(pipelines, "moved"))
        )
        pipelines.settled("moved", 240)
        load.wait_ended(5, 60)
        jobs = load.check()
    replaced(pipelines, "moved", before, f"localhost/disagfusion-emulated:{_TAG}")
    assert not set(gateway) & set(pipelines.pods("moved", "gateway"))
    compare_versions(jobs, {**versions, **pipelines.versions("moved")})
