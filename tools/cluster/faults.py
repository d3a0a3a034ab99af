"""Things that go wrong, on purpose, and their repair."""

from __future__ import annotations

import signal
from typing import Any

from tools.cluster import controlplane, images, network, nodes
from tools.cluster.addresses import NodeAddresses, plan
from tools.cluster.errors import ClusterError
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout
from tools.cluster.lifecycle import processes_of
from tools.cluster.options import Options


def _node(layout: Layout, name: str) -> NodeAddresses:
    names = Options.load(layout.options).node_names
    try:
        return plan(names).node(name)
    except KeyError:
        raise ClusterError(
            f"there is no real node {name}; there are {', '.join(names) or 'none'}"
        ) from None


def partition(layout: Layout, name: str) -> None:
    """Cut a real node off from everything else; its pods go on.

    Raises:
        ClusterError: There is no such node.
    """
    network.cut(_node(layout, name))


def heal(layout: Layout, name: str) -> None:
    """Join a real node that was cut off to the others again.

    Raises:
        ClusterError: There is no such node.
    """
    network.mend(_node(layout, name))


def partitioned(layout: Layout) -> list[str]:
    """Return the names of the real nodes that are cut off."""
    names = Options.load(layout.options).node_names
    return [node.name for node in plan(names).nodes if network.is_cut(node)]


def signal_container(
    layout: Layout, kubectl: Kubectl, namespace: str, pod: str, number: signal.Signals
) -> str:
    """Send a signal to the first process of a pod's container, past the kubelet.

    SIGKILL ends it as a crash does: nothing is said goodbye to, and the kubelet starts it again in
    the same pod. SIGSTOP has it hang, SIGCONT has it go on.

    Returns:
        The container, as the pod's status has it: `containerd://…`.

    Raises:
        ClusterError: There is no such pod, or its first container does not run on a real node.
    """
    found = kubectl.json("-n", namespace, "get", "pod", pod)
    statuses: list[dict[str, Any]] = found.get("status", {}).get("containerStatuses", [])
    if not statuses or "running" not in statuses[0].get("state", {}):
        raise ClusterError(f"the container of {namespace}/{pod} does not run")
    container = str(statuses[0]["containerID"])
    node = _node(layout, found["spec"]["nodeName"]).name
    task = container.removeprefix("containerd://")
    images.ctr(layout, node, "tasks", "kill", "--signal", number.name, task)
    return container


def stop_apiserver(layout: Layout, *, freeze: bool = False) -> None:
    """Take the API server away.

    Args:
        layout: The cluster.
        freeze: Let it hang with open connections that say nothing, rather than end.

    Raises:
        ClusterError: It does not run.
    """
    processes = processes_of(layout)
    if not processes.alive(controlplane.API_SERVER):
        raise ClusterError("the API server does not run")
    if freeze:
        processes.send(controlplane.API_SERVER, signal.SIGSTOP)
    else:
        # It takes its time to say goodbye to watches; a crash does not.
        processes.stop(controlplane.API_SERVER, signal.SIGKILL)


def start_apiserver(layout: Layout, *, wait_for_nodes: bool = True) -> None:
    """Bring the API server back and wait until it, and the real nodes, are ready.

    Raises:
        ClusterError: It was never started, or does not become ready.
    """
    options, processes = Options.load(layout.options), processes_of(layout)
    kubectl = Kubectl(layout.kubeconfig)
    if not processes.send(controlplane.API_SERVER, signal.SIGCONT):
        processes.restart(controlplane.API_SERVER)
    controlplane.wait_for_api(layout, processes, kubectl)
    if wait_for_nodes and options.nodes:
        nodes.wait_ready(plan(options.node_names), processes, kubectl)


def restart(layout: Layout, name: str) -> None:
    """Start a program of the cluster anew, as it was started before.

    Raises:
        ClusterError: It was never started.
    """
    processes = processes_of(layout)
    if processes.record(name) is None:
        raise ClusterError(f"there is no program {name}; there are {', '.join(processes.names())}")
    processes.stop(name)
    processes.restart(name)
