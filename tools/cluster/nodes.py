"""Real nodes: containerd, kubelet and kube-proxy in a network of their own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tools.cluster import cgroups, commands, configs, images, network, programs
from tools.cluster.addresses import Addresses, NodeAddresses
from tools.cluster.controlplane import access
from tools.cluster.errors import ClusterError
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout
from tools.cluster.options import Options
from tools.cluster.processes import Processes, wait_for

_START_SECONDS = 60
_READY_SECONDS = 120


def program(node: str, name: str) -> str:
    """Return what a node's program is called in the records."""
    return f"{node}-{name}"


def start(
    layout: Layout, addresses: Addresses, options: Options, processes: Processes, kubectl: Kubectl
) -> None:
    """Start every real node and wait until all are ready.

    Raises:
        ClusterError: A program ended, or a node does not become ready.
    """
    pause = images.pause_archive(layout)
    for node in addresses.nodes:
        _prepare(layout, node, addresses, options)
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda node: _start_runtime(layout, node, processes), addresses.nodes))
    for node in addresses.nodes:
        images.load(layout, [node.name], [pause])
        _start_agents(layout, node, processes)
    network.reach_services(addresses.nodes[0])
    wait_ready(addresses, processes, kubectl)


def wait_ready(addresses: Addresses, processes: Processes, kubectl: Kubectl) -> None:
    """Wait until every real node is ready.

    Raises:
        ClusterError: A node's program ended, or it takes too long.
    """
    names = [node.name for node in addresses.nodes]
    agents = [program(name, part) for name in names for part in ("containerd", "kubelet")]
    wait_for(
        f"nodes {', '.join(names)}",
        _READY_SECONDS,
        lambda: ready(kubectl, names),
        processes.why_not(*agents),
    )


def ready(kubectl: Kubectl, names: Sequence[str]) -> bool:
    """Tell whether all of these nodes are there and ready."""
    try:
        listed = kubectl.json("get", "nodes")["items"]
    except ClusterError:
        return False
    states = {
        item["metadata"]["name"]: any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in item["status"].get("conditions", [])
        )
        for item in listed
    }
    return all(states.get(name, False) for name in names)


def _prepare(layout: Layout, node: NodeAddresses, addresses: Addresses, options: Options) -> None:
    network.add_node(node, addresses)
    cgroups.create(node.cgroup)
    files = layout.node(node.name)
    for directory in ("cni", "kubelet", "ipam", "podlogs", "certificates"):
        (files.run / directory).mkdir(parents=True, exist_ok=True)
    files.store.mkdir(parents=True, exist_ok=True)
    texts = {
        "containerd.toml": configs.containerd(files, programs.plugins()),
        "cni/10-disagfusion.conflist": configs.cni(node, files),
        "kubelet.yaml": configs.kubelet(node, files, layout, addresses, options),
        "kube-proxy.yaml": configs.kube_proxy(node, access(layout, "kube-proxy")),
        "resolv.conf": "",
    }
    for name, text in texts.items():
        (files.run / name).write_text(text)


def _start_runtime(layout: Layout, node: NodeAddresses, processes: Processes) -> None:
    files, name = layout.node(node.name), program(node.name, "containerd")
    settings = files.run / "containerd.toml"
    command = [*network.inside(node), programs.system("containerd"), "--config", str(settings)]
    environment = commands.environment()

    def answers() -> bool:
        client = programs.system("ctr")
        return commands.succeeds(client, "-a", files.socket, "version", seconds=5)

    processes.start(name, command, environment)
    wait_for(f"containerd of {node.name}", _START_SECONDS, answers, processes.why_not(name))
    if _forget_containers(layout, node.name):
        # It read them into its memory when it began.
        processes.stop(name)
        processes.start(name, command, environment)
        wait_for(f"containerd of {node.name}", _START_SECONDS, answers, processes.why_not(name))


def _forget_containers(layout: Layout, node: str) -> bool:
    """Remove what an earlier cluster's containers left; tell whether there were any."""
    old = images.ctr(layout, node, "containers", "ls", "-q").split()
    for batch in range(0, len(old), 100):
        images.ctr(layout, node, "containers", "rm", *old[batch : batch + 100])
    return bool(old)


def _start_agents(layout: Layout, node: NodeAddresses, processes: Processes) -> None:
    files, inside = layout.node(node.name), network.inside(node)
    environment = commands.environment()
    kubelet = [
        *inside,
        str(programs.need("kubelet")),
        f"--config={files.run / 'kubelet.yaml'}",
        f"--kubeconfig={access(layout, node.name)}",
        f"--root-dir={files.run / 'kubelet'}",
        f"--cert-dir={files.run / 'certificates'}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels=topology.kubernetes.io/zone=zone-{node.name.removeprefix('node')}",
    ]
    processes.start(program(node.name, "kubelet"), kubelet, environment)
    proxy = [
        *inside,
        str(programs.need("kube-proxy")),
        f"--config={files.run / 'kube-proxy.yaml'}",
    ]
    processes.start(program(node.name, "kube-proxy"), proxy, environment)
