"""The examples are applied as they are; nodes with accelerators are fake, the rest is real."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from postgres_server import PostgresServer

from disagfusion.client import JobState
from tests.cluster.operator.pipelines import SECONDS, Pipelines, eventually
from tests.cluster.operator.test_pipeline import ends
from tests.cluster.testing import Cluster
from tools.cluster import configs, objects
from tools.cluster.layout import ROOT

EXAMPLES = ROOT / "examples"
RDMA = "rdma/hca_shared_devices_a"
_BRIDGE = "10.89.0.1"
_FAKE = [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}]


def apply(pipelines: Pipelines, name: str) -> dict[str, Any]:
    """Apply an example as its reader does, and return it."""
    path = EXAMPLES / f"{name}.yaml"
    pipelines("apply", "-f", str(path))
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def deployments(pipelines: Pipelines) -> dict[str, int]:
    """Return what the Deployments ask for, without those of gateways."""
    return {
        one["metadata"]["name"]: one["spec"]["replicas"]
        for one in pipelines.json("get", "deployments")["items"]
        if not one["metadata"]["name"].endswith("-gateway")
    }


def tolerate(pipelines: Pipelines, example: dict[str, Any]) -> None:
    """Let the stages run on nodes that kwok plays."""
    pools = {
        name: {"tolerations": [*pool.get("tolerations", ()), *_FAKE]}
        for name, pool in example["spec"]["pools"].items()
    }
    pipelines.patch(example["metadata"]["name"], {"spec": {"pools": pools}})


def nodes(pipelines: Pipelines, name: str, stage: str) -> set[str]:
    """Return the pools of the fake nodes where a stage runs."""
    return {
        pipelines.json("get", "pod", pod)["spec"]["nodeName"].split("-")[1]
        for pod in pipelines.pods(name, stage)
    }


@pytest.fixture
def fake(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Add fake nodes: `fake(pool, count, label)`."""

    def add(pool: str, count: int, label: str) -> None:
        objects.add_fake_nodes(cluster.kubectl, pool, count, 4, labels=[label])

    yield add
    objects.remove_fake_nodes(cluster.kubectl)


def test_digits(cluster: Cluster, pipelines: Pipelines) -> None:
    """Until its pods are on their nodes: their images are large, and the walk draws with them."""
    apply(pipelines, "digits")
    eventually("its gateway is ready", 90, lambda: pipelines.status("digits").get("endpoint"))
    eventually("a worker of each stage", 30, lambda: {*deployments(pipelines).values()} == {1})
    assert {*deployments(pipelines)} == {
        "digits-encoder-cpu", "digits-dit-cpu", "digits-decoder-cpu",
    }  # fmt: skip
    gateway = pipelines.json("get", "deployment", "digits-gateway")["spec"]["template"]["spec"]
    _, _, tag = gateway["containers"][0]["image"].rpartition(":")

    def placed() -> set[tuple[str, bool]]:
        """Return the images of the stages' pods, and whether these are on a real node."""
        pods = [
            pipelines.json("get", "pod", pod)["spec"]
            for stage in SECONDS
            for pod in pipelines.pods("digits", stage)
        ]
        return {
            (pod["containers"][0]["image"], pod.get("nodeName") in cluster.nodes) for pod in pods
        }

    expected = {(f"localhost/disagfusion-{stage}:{tag}", True) for stage in SECONDS}
    eventually("a pod of each stage on a node", 30, lambda: placed() == expected)


@pytest.mark.parametrize(
    ("name", "ratio", "made"),
    [
        ("flex", "1:6:1", {"supple-flex-a10": 8}),
        (
            "scale-to-zero",
            "1:1:1",
            dict.fromkeys(("sleepy-encoder-a10", "sleepy-dit-a10", "sleepy-decoder-a10"), 1),
        ),
    ],
)
async def test_an_emulated_one_does_a_job(
    pipelines: Pipelines, name: str, ratio: str, made: dict[str, int]
) -> None:
    own = apply(pipelines, name)["metadata"]["name"]
    assert pipelines.settled(own)["ratio"] == ratio
    assert deployments(pipelines) == made
    async with pipelines.client(own) as client:
        handle = await client.submit("a picture", height=512, width=512, seed=1)
        (job,) = await ends([handle], 180)
    assert job.state is JobState.SUCCEEDED


def test_flux_on_two_pools(pipelines: Pipelines, fake: Callable[..., None]) -> None:
    fake("l4", 4, "nvidia.com/gpu.product=NVIDIA-L4")
    fake("h100", 1, "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3")
    pipelines("create", "secret", "generic", "hub", "--from-literal=token=hf_none")
    example = apply(pipelines, "flux-two-pools")
    tolerate(pipelines, example)
    status = pipelines.settled("flux")
    assert 3 < sum(one["ready"] for one in status["stages"].values()) <= 16
    assert nodes(pipelines, "flux", "encoder") == {"l4"}
    assert "h100" in nodes(pipelines, "flux", "dit")
    assert nodes(pipelines, "flux", "decoder") == {"l4"}


def test_wan_on_three_pools(
    cluster: Cluster, pipelines: Pipelines, fake: Callable[..., None]
) -> None:
    for pool, kind in {"small": "a10", "medium": "l40s", "large": "h100"}.items():
        fake(pool, 1, f"accelerators.example.com/kind={kind}")
        node = f"fake-{pool}-1"
        room = {"status": {side: {RDMA: "8"} for side in ("capacity", "allocatable")}}
        patch = yaml.safe_dump(room)
        cluster.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", patch)
    pipelines.claim("models")
    profile = f"--from-file=profile.yaml={EXAMPLES / 'profiles' / 'three-pools.yaml'}"
    pipelines("create", "configmap", "wan", profile)
    example = apply(pipelines, "wan-three-pools")
    tolerate(pipelines, example)
    status = pipelines.settled("wan")
    assert all(one["ready"] >= 1 for one in status["stages"].values())
    assert nodes(pipelines, "wan", "dit") <= {"medium", "large"}
    assert nodes(pipelines, "wan", "encoder") <= {"small", "medium"}
    (pod, *_) = pipelines.pods("wan", "dit")
    (container,) = pipelines.json("get", "pod", pod)["spec"]["containers"]
    assert container["resources"]["limits"][RDMA] == "1"


def test_two_gateways_on_postgresql(cluster: Cluster, pipelines: Pipelines, tmp_path: Path) -> None:
    server = PostgresServer(_BRIDGE)
    try:
        url = f"--from-literal=url={server.database()}"
        pipelines("create", "secret", "generic", "jobs", url)
        keys = tmp_path / "keys.txt"
        command = [str(Path(sys.executable).with_name("disagfusion")), "keys", "create", "alice"]
        subprocess.run([*command, "--file", str(keys)], check=True, stdout=subprocess.DEVNULL)
        pipelines("create", "secret", "generic", "keys", f"--from-file={keys}")
        path = cluster.layout.volumes / pipelines.namespace
        path.mkdir()
        path.chmod(0o777)
        volume = configs.volume(pipelines.namespace, path, "50Gi")
        volume["spec"] |= {"storageClassName": "shared", "accessModes": ["ReadWriteMany"]}
        cluster.kubectl.apply([volume])
        apply(pipelines, "postgresql")

        def ready() -> bool:
            found = pipelines.json("get", "deployment", "digits-shared-gateway")
            return bool(found["status"].get("readyReplicas") == 2)

        eventually("both gateways are ready", 120, ready)
        claim = pipelines.json("get", "persistentvolumeclaims")["items"][0]
        assert claim["spec"]["volumeName"] == pipelines.namespace
        assert claim["status"]["phase"] == "Bound"
        pipelines("delete", "dfp", "digits-shared", "--timeout=90s")
    finally:
        server.close()
        cluster.kubectl(
            "delete", "persistentvolume", pipelines.namespace, "--wait=false", "--ignore-not-found"
        )
