"""A bridge, and for each real node a network namespace with a cable to it.

Nothing of the cluster's ranges may leave the machine: nodes have no default route, and routes that
say `unreachable` catch on the machine what no node takes.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path

from tools.cluster import commands, programs
from tools.cluster.addresses import BRIDGE, NODES, PODS, PREFIX, SERVICES, Addresses, NodeAddresses
from tools.cluster.errors import ClusterError

NAMESPACES = Path("/run/netns")
# Later than any route to a node.
_LAST_RESORT = "4000"
# An interface's alias has room for 255 characters.
_ALIAS_LIMIT = 255


def _ip(*arguments: str) -> str:
    return commands.run("ip", *arguments)


def inside(node: NodeAddresses) -> list[str]:
    """Return what goes before a command that is to run in a node's network.

    Not `ip netns exec`, which mounts another /sys that has no control groups.
    """
    return [programs.system("nsenter"), f"--net={NAMESPACES / node.namespace}", "--"]


def owner() -> str | None:
    """Return which cluster's directory the bridge is of; None where there is no bridge."""
    if not Path("/sys/class/net", BRIDGE).exists():
        return None
    return str(json.loads(_ip("-json", "link", "show", BRIDGE))[0].get("ifalias", ""))


def _mark(root: Path) -> str:
    return str(root)[-_ALIAS_LIMIT:]


def owned(root: Path) -> bool:
    """Tell whether the network that there is belongs to the cluster in `root`."""
    return owner() == _mark(root)


def create(root: Path, addresses: Addresses) -> None:
    """Make the bridge, marked as belonging to `root`, and the last routes.

    Raises:
        ClusterError: Another cluster runs, or the machine uses these addresses.
    """
    if (other := owner()) is not None:
        raise ClusterError(
            f"another cluster runs on this machine, of {other or 'unknown origin'}:"
            " take it down first, there is one at a time"
        )
    taken = [
        route["dst"]
        for route in json.loads(_ip("-json", "route", "show"))
        if route["dst"] in {str(NODES), str(PODS), str(SERVICES)}
    ]
    if taken:
        raise ClusterError(f"the machine has routes to {', '.join(taken)}, which the cluster needs")
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("link", "set", BRIDGE, "alias", _mark(root))
    _ip("address", "add", f"{addresses.control_plane}/{NODES.prefixlen}", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    for network in (PODS, SERVICES):
        _ip("route", "add", "unreachable", str(network), "metric", _LAST_RESORT)


def add_node(node: NodeAddresses, addresses: Addresses) -> None:
    """Make a node's network namespace, its cable and its routes."""
    _ip("netns", "add", node.namespace)
    _ip("link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", node.namespace)
    _ip("link", "set", node.link, "master", BRIDGE, "up")

    def within(*arguments: str) -> None:
        commands.run(*inside(node), "ip", *arguments)

    within("link", "set", "lo", "up")
    within("address", "add", f"{node.address}/{NODES.prefixlen}", "dev", "eth0")
    within("link", "set", "eth0", "up")
    # For a process of the node itself that asks a service: its packets need a way before they get
    # the address of a pod.
    within("route", "add", str(SERVICES), "via", str(addresses.control_plane))
    for other in addresses.nodes:
        if other != node:
            within("route", "add", str(other.pods), "via", str(other.address))
    settings = {"ip_forward": "1", "conf/all/rp_filter": "0", "conf/default/rp_filter": "0"}
    for name, value in settings.items():
        commands.run(*inside(node), "tee", f"/proc/sys/net/ipv4/{name}", text=value)
    _ip("route", "add", str(node.pods), "via", str(node.address))


def reach_services(node: NodeAddresses) -> None:
    """Let the machine reach services through a node."""
    _ip("route", "replace", str(SERVICES), "via", str(node.address))


def require_free(ports: Iterable[tuple[str, int]]) -> None:
    """Check that nobody listens where the cluster's programs are going to.

    Raises:
        ClusterError: Somebody does.
    """
    for host, port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ClusterError(
                    f"{host}:{port}, where the cluster is to listen, is taken: {error.strerror}"
                ) from error


def cut(node: NodeAddresses) -> None:
    """Pull a node's cable out."""
    _ip("link", "set", node.link, "down")


def mend(node: NodeAddresses) -> None:
    """Put a node's cable back in."""
    _ip("link", "set", node.link, "up")


def is_cut(node: NodeAddresses) -> bool:
    """Tell whether a node's cable is out."""
    link = json.loads(_ip("-json", "link", "show", node.link))[0]
    return "UP" not in link["flags"]


def remove(root: Path) -> list[str]:
    """Remove what `create` and `add_node` made, if it belongs to `root`; return what it was."""
    if not owned(root):
        return []
    removed = []
    for path in sorted(NAMESPACES.glob(f"{PREFIX}-node*")):
        _ip("netns", "delete", path.name)
        removed.append(f"namespace {path.name}")
    # A namespace goes away later than its name, and the cable with it: up to half a minute.
    for path in sorted(Path("/sys/class/net").glob(f"{PREFIX}-node*")):
        commands.succeeds("ip", "link", "delete", path.name)
        removed.append(f"link {path.name}")
    for network in (PODS, SERVICES):
        commands.succeeds(
            "ip", "route", "delete", "unreachable", str(network), "metric", _LAST_RESORT
        )
    # Last: it says whose all of this is.
    _ip("link", "delete", BRIDGE)
    return [*removed, f"bridge {BRIDGE}"]
