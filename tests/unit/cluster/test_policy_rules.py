from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Any

import pytest

from tools.cluster.policy_rules import Cluster, Pod, pods_from, ruleset, selects

LABELS = {"prod": {"env": "prod"}, "test": {"env": "test"}}


def pod(name: str, address: str, node: str = "node1", namespace: str = "prod", **ports: int) -> Pod:
    numbers = {(port, "TCP"): number for port, number in ports.items()}
    return Pod(namespace, name, node, IPv4Address(address), {"app": name}, numbers)


SERVER = pod("server", "10.244.1.2", grpc=7430)
CLIENT = pod("client", "10.244.2.2", node="node2", grpc=9000)
STRANGER = pod("stranger", "10.244.2.3", node="node2", namespace="test")
PODS = (SERVER, CLIENT, STRANGER)


def policy(namespace: str = "prod", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": {"podSelector": {}, **spec}}


def rules(*policies: dict[str, Any], node: str = "node1") -> str:
    return ruleset(node, Cluster(PODS, LABELS, policies))


def chain(text: str, name: str) -> list[str]:
    """Return the lines of a chain, without its name and its end."""
    found = re.search(rf"  chain {name} {{\n(.*?)\n  }}", text, re.DOTALL)
    assert found, f"no chain {name} in:\n{text}"
    return [line.strip() for line in found[1].splitlines()]


def ingress(*rules_: dict[str, Any]) -> dict[str, Any]:
    return policy(podSelector={"matchLabels": {"app": "server"}}, ingress=list(rules_))


def test_pods_that_no_policy_selects_are_free() -> None:
    text = rules(policy(namespace="another", ingress=[]))
    assert "vmap" not in text
    assert "drop" not in text


def test_a_policy_without_rules_lets_nothing_in() -> None:
    text = rules(ingress())
    assert "ip daddr vmap { 10.244.1.2 : jump in-0 }" in text
    assert chain(text, "in-0") == ["drop"]
    assert "ip saddr vmap" not in text


def test_an_empty_rule_lets_everything_in() -> None:
    assert chain(rules(ingress({})), "in-0") == ["meta nfproto ipv4 return", "drop"]


def test_only_pods_of_the_node_are_governed_there() -> None:
    text = rules(policy(podSelector={"matchLabels": {"app": "client"}}))
    assert "vmap" not in text
    other = rules(policy(podSelector={"matchLabels": {"app": "client"}}), node="node2")
    assert "ip daddr vmap { 10.244.2.2 : jump in-0 }" in other


def test_peers_are_of_the_policys_namespace_unless_it_says_otherwise() -> None:
    own = rules(ingress({"from": [{"podSelector": {}}]}))
    assert chain(own, "in-0")[0] == "ip saddr { 10.244.1.2, 10.244.2.2 } return"
    there = {"namespaceSelector": {"matchLabels": {"env": "test"}}}
    assert chain(rules(ingress({"from": [there]})), "in-0")[0] == "ip saddr { 10.244.2.3 } return"
    nobody = {**there, "podSelector": {"matchLabels": {"app": "client"}}}
    assert chain(rules(ingress({"from": [nobody]})), "in-0") == ["drop"]


def test_ports_narrow_what_peers_may() -> None:
    rule = {
        "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
        "ports": [
            {"port": 7430},
            {"protocol": "UDP", "port": 7440, "endPort": 7499},
            {"protocol": "SCTP"},
        ],
    }
    assert chain(rules(ingress(rule)), "in-0") == [
        "ip saddr { 10.244.2.2 } tcp dport 7430 return",
        "ip saddr { 10.244.2.2 } udp dport 7440-7499 return",
        "ip saddr { 10.244.2.2 } meta l4proto sctp return",
        "drop",
    ]


def test_a_named_port_is_the_one_of_the_pod_that_is_reached() -> None:
    into = chain(rules(ingress({"ports": [{"port": "grpc"}]})), "in-0")
    assert into == ["meta nfproto ipv4 tcp dport 7430 return", "drop"]
    out = policy(
        podSelector={"matchLabels": {"app": "server"}},
        policyTypes=["Egress"],
        egress=[{"to": [{"podSelector": {}}], "ports": [{"port": "grpc"}]}],
    )
    assert chain(rules(out), "out-0") == [
        "ip daddr 10.244.1.2 tcp dport 7430 return",
        "ip daddr 10.244.2.2 tcp dport 9000 return",
        "drop",
    ]


def test_a_name_that_no_pod_has_allows_nothing() -> None:
    assert chain(rules(ingress({"ports": [{"port": "unknown"}]})), "in-0") == ["drop"]


def test_blocks_of_addresses_have_exceptions_that_do_not_overlap() -> None:
    block = {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.1.2.0/24"]}
    assert chain(rules(ingress({"from": [{"ipBlock": block}]})), "in-0") == [
        "ip saddr 10.0.0.0/8 ip saddr != { 10.1.0.0/16 } return",
        "drop",
    ]


@pytest.mark.parametrize(
    ("spec", "governed"),
    [
        ({"ingress": []}, {"in"}),
        ({"egress": []}, {"in", "out"}),
        ({"policyTypes": ["Egress"]}, {"out"}),
        ({"policyTypes": ["Ingress", "Egress"]}, {"in", "out"}),
    ],
)
def test_which_ways_a_policy_speaks_of(spec: dict[str, Any], governed: set[str]) -> None:
    text = rules(policy(**spec))
    assert {name for name in ("in", "out") if f"chain {name}-0 " in text} == governed


def test_what_any_policy_allows_is_allowed() -> None:
    first = ingress({"ports": [{"port": 1}]})
    second = ingress({"ports": [{"port": 2}]})
    assert chain(rules(first, second), "in-0") == [
        "meta nfproto ipv4 tcp dport 1 return",
        "meta nfproto ipv4 tcp dport 2 return",
        "drop",
    ]


def test_connections_that_there_are_and_names_are_always_allowed() -> None:
    lines = chain(rules(ingress()), "forward")
    assert lines[1] == "ct state established,related accept"
    assert lines[2] == "ip daddr 10.89.0.1 meta l4proto { tcp, udp } th dport 53 accept"


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "dit"}}, True),
        ({"matchLabels": {"app": "dit", "pool": "b"}}, False),
        ({"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]}, True),
        ({"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["a"]}]}, False),
        ({"matchExpressions": [{"key": "gone", "operator": "NotIn", "values": ["a"]}]}, True),
        ({"matchExpressions": [{"key": "pool", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "pool", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_selectors_match_as_the_apis_do(selector: dict[str, Any], expected: bool) -> None:
    assert selects(selector, {"app": "dit", "pool": "a"}) is expected


def item(**changes: Any) -> dict[str, Any]:
    port = {"name": "grpc", "containerPort": 7430}
    return {
        "metadata": {"namespace": "prod", "name": "p", "labels": {"app": "dit"}},
        "spec": {"nodeName": "node1", "containers": [{"ports": [port]}], **changes.pop("spec", {})},
        "status": {"phase": "Running", "podIP": "10.244.1.2", **changes},
    }


def test_a_pod_is_read_with_its_named_ports() -> None:
    assert pods_from([item()]) == [
        Pod(
            "prod", "p", "node1", IPv4Address("10.244.1.2"), {"app": "dit"}, {("grpc", "TCP"): 7430}
        )
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"podIP": ""},
        {"phase": "Succeeded"},
        {"spec": {"hostNetwork": True}},
        # kwok's pods have addresses of no node's.
        {"podIP": "10.0.0.7"},
    ],
)
def test_pods_without_an_address_of_their_own_are_left_out(changes: dict[str, Any]) -> None:
    assert pods_from([item(**changes)]) == []
