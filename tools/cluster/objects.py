"""Objects that tests and trials want in a cluster: fake nodes, volumes, labels, accelerators."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tools.cluster import configs
from tools.cluster.errors import ClusterError
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout
from tools.cluster.processes import wait_for

_SETTLE_SECONDS = 60


def add_fake_nodes(
    kubectl: Kubectl,
    pool: str,
    count: int,
    gpus: int,
    *,
    cpu: int = 64,
    memory: str = "512Gi",
    labels: Sequence[str] = (),
) -> list[str]:
    """Add nodes that kwok plays and wait until they are ready; return their names.

    Args:
        kubectl: The cluster.
        pool: Their label `disagfusion.dev/pool`, and part of their names.
        count: How many nodes the pool shall have.
        gpus: Accelerators of each.
        cpu: Cores of each.
        memory: Memory of each.
        labels: More labels, `key=value`.

    Raises:
        ClusterError: The cluster refuses them, or they do not become ready.
    """
    names = [f"fake-{pool}-{number}" for number in range(1, count + 1)]
    # What a node says of its room is its status: one that exists keeps what it has.
    wanted = [
        configs.fake_node(name, pool, gpus, cpu=cpu, memory=memory, labels=labels) for name in names
    ]
    kubectl.apply(wanted)

    def ready() -> bool:
        return set(names) <= set(ready_nodes(kubectl, f"disagfusion.dev/pool={pool},type=kwok"))

    wait_for(f"{count} fake nodes of pool {pool}", _SETTLE_SECONDS, ready)
    return names


def ready_nodes(kubectl: Kubectl, selector: str) -> list[str]:
    """Return the names of the ready nodes that have these labels."""
    listed = kubectl.json("get", "nodes", "-l", selector)["items"]
    return [
        item["metadata"]["name"]
        for item in listed
        if any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in item["status"].get("conditions", [])
        )
    ]


def remove_fake_nodes(kubectl: Kubectl, pool: str | None = None) -> str:
    """Remove the fake nodes of a pool, or all, and what runs on them; return what kubectl says."""
    selector = "type=kwok" + (f",disagfusion.dev/pool={pool}" if pool else "")
    return kubectl("delete", "nodes", "-l", selector, "--wait=true")


def set_resource(kubectl: Kubectl, node: str, resource: str, amount: int) -> None:
    """Let a real node say that it has so much of a resource, and wait until pods can have it.

    Raises:
        ClusterError: There is no such node, or its kubelet does not take it up.
    """
    escaped = resource.replace("~", "~0").replace("/", "~1")
    patch = [{"op": "add", "path": f"/status/capacity/{escaped}", "value": str(amount)}]
    kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(patch))

    def allocatable() -> bool:
        status: dict[str, Any] = kubectl.json("get", "node", node)["status"]
        return str(status["allocatable"].get(resource, "0")) == str(amount)

    wait_for(f"{amount} {resource} on {node}", _SETTLE_SECONDS, allocatable)


def set_labels(kubectl: Kubectl, node: str, labels: Sequence[str]) -> None:
    """Label a node; `key=value` sets, `key-` removes."""
    if bad := [label for label in labels if "=" not in label and not label.endswith("-")]:
        raise ClusterError(f"a label is key=value, or key- to remove it, not {bad[0]!r}")
    kubectl("label", "--overwrite", "node", node, *labels)


def add_volumes(layout: Layout, kubectl: Kubectl, count: int, size: str = "10Gi") -> list[str]:
    """Add persistent volumes to those that there are; return their names.

    Each is an empty directory of the machine that every node sees and every user may write to.
    """
    layout.volumes.mkdir(parents=True, exist_ok=True)
    used = {item["metadata"]["name"] for item in kubectl.json("get", "persistentvolumes")["items"]}
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        if (name := f"volume-{number}") not in used:
            names.append(name)
    for name in names:
        directory = layout.volumes / name
        directory.mkdir(exist_ok=True)
        directory.chmod(0o777)
    kubectl.apply([configs.volume(name, layout.volumes / name, size) for name in names])
    return names
