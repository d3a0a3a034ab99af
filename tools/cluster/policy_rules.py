"""Network policies as rules of the kernel's packet filter; pure text from objects of the API.

As NetworkPolicy says: a pod that a policy selects takes, or makes, only the connections that some
policy allows; others are free. Both ends are asked, each on its own node. Packets of connections
that were allowed pass. A node always reaches its own pods, which probes need.

What differs from a cluster with a network of its own: DNS is a process of the machine, so that
selecting its pods cannot allow it; it is always allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Any

from tools.cluster.addresses import NODES, PODS

TABLE = "disagfusion_policies"
_DNS = NODES[1]
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """What rules need to know of a pod.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        node: The node that it is on.
        address: Its address.
        labels: Its labels.
        ports: Numbers of its named ports, by name and protocol.
    """

    namespace: str
    name: str
    node: str
    address: IPv4Address
    labels: Mapping[str, str]
    ports: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Cluster:
    """The objects that rules come from.

    Attributes:
        pods: Pods with an address of the cluster's.
        namespaces: Labels of each namespace.
        policies: Every NetworkPolicy.
    """

    pods: Sequence[Pod]
    namespaces: Mapping[str, Mapping[str, str]]
    policies: Sequence[Object]


def pods_from(items: Iterable[Object]) -> list[Pod]:
    """Return the pods among these that have an address of their own and have not ended."""
    found = []
    for item in items:
        spec, status, metadata = item["spec"], item.get("status", {}), item["metadata"]
        address = status.get("podIP", "")
        ended = status.get("phase") in ("Succeeded", "Failed")
        if not address or ended or spec.get("hostNetwork") or IPv4Address(address) not in PODS:
            continue
        ports = {
            (port["name"], port.get("protocol", "TCP")): int(port["containerPort"])
            for container in spec["containers"]
            for port in container.get("ports", [])
            if port.get("name")
        }
        found.append(
            Pod(
                namespace=metadata["namespace"],
                name=metadata["name"],
                node=spec.get("nodeName", ""),
                address=IPv4Address(address),
                labels=metadata.get("labels", {}),
                ports=ports,
            )
        )
    return sorted(found, key=lambda pod: (pod.namespace, pod.name))


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector matches; an empty one matches everything."""
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_holds(term, labels) for term in selector.get("matchExpressions") or [])


def _holds(term: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(term["key"]), term.get("values") or []
    match term["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case other:
            raise ValueError(f"a label selector with the operator {other!r}")


@dataclass(frozen=True)
class _Direction:
    """One of the two ways that a policy speaks of, with its names in the API and in the filter."""

    kind: str
    rules: str
    peers: str
    peer_address: str
    prefix: str


_INGRESS = _Direction("Ingress", "ingress", "from", "saddr", "in")
_EGRESS = _Direction("Egress", "egress", "to", "daddr", "out")


def _governs(policy: Object, direction: _Direction) -> bool:
    kinds = policy["spec"].get("policyTypes")
    if kinds:
        return direction.kind in kinds
    return direction is _INGRESS or direction.rules in policy["spec"]


def ruleset(node: str, cluster: Cluster) -> str:
    """Return the filter's rules for a node, which replace the ones before in one step."""
    chains: list[str] = []
    jumps = []
    for direction, own in ((_EGRESS, "saddr"), (_INGRESS, "daddr")):
        entries = []
        for number, pod in enumerate(pod for pod in cluster.pods if pod.node == node):
            policies = [
                policy
                for policy in cluster.policies
                if policy["metadata"]["namespace"] == pod.namespace
                and _governs(policy, direction)
                and selects(policy["spec"].get("podSelector") or {}, pod.labels)
            ]
            if policies:
                name = f"{direction.prefix}-{number}"
                entries.append(f"{pod.address} : jump {name}")
                chains += _chain(name, pod, policies, direction, cluster)
        if entries:
            jumps.append(f"    ip {own} vmap {{ {', '.join(entries)} }}")
    return "\n".join(
        [
            f"table inet {TABLE}",
            f"delete table inet {TABLE}",
            f"table inet {TABLE} {{",
            *chains,
            "  chain forward {",
            "    type filter hook forward priority filter; policy accept;",
            "    ct state established,related accept",
            f"    ip daddr {_DNS} meta l4proto {{ tcp, udp }} th dport 53 accept",
            *jumps,
            "  }",
            "}",
            "",
        ]
    )


def _chain(
    name: str, pod: Pod, policies: Sequence[Object], direction: _Direction, cluster: Cluster
) -> list[str]:
    lines = [f"  chain {name} {{"]
    for policy in policies:
        for rule in policy["spec"].get(direction.rules) or []:
            lines += [
                f"    {text} return" for text in _allowed(pod, policy, rule, direction, cluster)
            ]
    return [*lines, "    drop", "  }"]


def _allowed(
    pod: Pod, policy: Object, rule: Object, direction: _Direction, cluster: Cluster
) -> Iterator[str]:
    """Yield the packets that a rule allows, as conditions."""
    peers = rule.get(direction.peers) or []
    ports = rule.get("ports") or []
    address = f"ip {direction.peer_address}"
    pods = [other for peer in peers for other in _peers(peer, policy, cluster)]
    sources = [f"{address} {_set(str(p.address) for p in pods)}"] if pods else []
    sources += [_block(address, peer["ipBlock"]) for peer in peers if "ipBlock" in peer]
    if not peers:
        sources = ["meta nfproto ipv4"]
    if not ports:
        yield from sources
    for port in ports:
        protocol, number = str(port.get("protocol", "TCP")), port.get("port")
        if isinstance(number, str):
            # The name may stand for another number in each pod.
            targets = [pod] if direction is _INGRESS else (pods if peers else cluster.pods)
            for target in targets:
                if (found := target.ports.get((number, protocol))) is None:
                    continue
                ways = sources if direction is _INGRESS else [f"{address} {target.address}"]
                yield from (f"{way} {_port(protocol, found, None)}" for way in ways)
        else:
            yield from (f"{way} {_port(protocol, number, port.get('endPort'))}" for way in sources)


def _peers(peer: Object, policy: Object, cluster: Cluster) -> Iterator[Pod]:
    if "ipBlock" in peer:
        return
    for pod in cluster.pods:
        if (selector := peer.get("namespaceSelector")) is None:
            near = pod.namespace == policy["metadata"]["namespace"]
        else:
            near = selects(selector, cluster.namespaces.get(pod.namespace, {}))
        if near and selects(peer.get("podSelector") or {}, pod.labels):
            yield pod


def _block(address: str, block: Object) -> str:
    text = f"{address} {IPv4Network(block['cidr'], strict=False)}"
    if excepted := block.get("except"):
        # The filter does not take ranges that overlap.
        apart = collapse_addresses(IPv4Network(part, strict=False) for part in excepted)
        text += f" {address} != {_set(str(part) for part in apart)}"
    return text


def _port(protocol: str, number: int | None, last: int | None) -> str:
    name = protocol.lower()
    if number is None:
        return f"meta l4proto {name}"
    return f"{name} dport {number}" + (f"-{last}" if last is not None else "")


def _set(members: Iterable[str]) -> str:
    return f"{{ {', '.join(sorted(set(members)))} }}"
