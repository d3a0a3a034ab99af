"""Which address everything has. Fixed: there is one such cluster on a machine at a time."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

# Of every link, network namespace, group of processes and network that is made.
PREFIX = "dfc"
BRIDGE = f"{PREFIX}0"
NODES = IPv4Network("10.89.0.0/24")
PODS = IPv4Network("10.244.0.0/16")
SERVICES = IPv4Network("10.96.0.0/16")
DOMAIN = "cluster.local"
LOOPBACK = IPv4Address("127.0.0.1")
API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
_FIRST_NODE = 10


@dataclass(frozen=True)
class NodeAddresses:
    """What belongs to one real node.

    Attributes:
        name: The node's name.
        address: Its own address.
        pods: The range that its pods have addresses of.
    """

    name: str
    address: IPv4Address
    pods: IPv4Network

    @property
    def namespace(self) -> str:
        """Its network namespace."""
        return f"{PREFIX}-{self.name}"

    @property
    def link(self) -> str:
        """The machine's end of its cable."""
        return f"{PREFIX}-{self.name}"

    @property
    def cgroup(self) -> str:
        """The group that its pods' processes are in."""
        return f"{PREFIX}-{self.name}"


@dataclass(frozen=True)
class Addresses:
    """The plan for a number of real nodes.

    Attributes:
        nodes: Every real node.
    """

    nodes: tuple[NodeAddresses, ...]

    @property
    def control_plane(self) -> IPv4Address:
        """Where the API server and DNS listen; loopback where there are no real nodes."""
        return NODES[1] if self.nodes else LOOPBACK

    @property
    def api_service(self) -> IPv4Address:
        """The service `kubernetes`."""
        return SERVICES[1]

    @property
    def api_url(self) -> str:
        """The API server."""
        return f"https://{self.control_plane}:{API_PORT}"

    def node(self, name: str) -> NodeAddresses:
        """Return what belongs to a node.

        Raises:
            KeyError: There is no such real node.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


def plan(names: list[str]) -> Addresses:
    """Return the addresses of real nodes, in the order of their names' list."""
    pods = list(PODS.subnets(new_prefix=24))
    return Addresses(
        tuple(
            NodeAddresses(name=name, address=NODES[_FIRST_NODE + number], pods=pods[number])
            for number, name in enumerate(names, start=1)
        )
    )
