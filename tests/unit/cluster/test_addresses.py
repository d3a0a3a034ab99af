from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from tools.cluster.addresses import LOOPBACK, NODES, PODS, SERVICES, plan

# What Linux takes for the name of an interface.
INTERFACE_NAME_LIMIT = 15


def names(count: int) -> list[str]:
    return [f"node{number}" for number in range(1, count + 1)]


def test_every_node_has_addresses_of_its_own() -> None:
    nodes = plan(names(20)).nodes
    assert len({node.address for node in nodes}) == 20
    assert len({node.pods for node in nodes}) == 20
    assert all(node.address in NODES for node in nodes)
    assert all(node.pods.subnet_of(PODS) for node in nodes)


def test_no_node_has_the_control_planes_address() -> None:
    addresses = plan(names(20))
    assert addresses.control_plane not in {node.address for node in addresses.nodes}
    assert addresses.control_plane in NODES


def test_the_ranges_do_not_overlap() -> None:
    assert not NODES.overlaps(PODS)
    assert not NODES.overlaps(SERVICES)
    assert not PODS.overlaps(SERVICES)


def test_without_nodes_the_api_server_is_on_loopback() -> None:
    addresses = plan([])
    assert addresses.control_plane == LOOPBACK
    assert addresses.api_url == "https://127.0.0.1:6443"


def test_the_first_service_address_is_the_api_servers() -> None:
    assert plan(names(1)).api_service == IPv4Address("10.96.0.1")


def test_links_have_names_that_the_kernel_takes() -> None:
    assert all(len(node.link) <= INTERFACE_NAME_LIMIT for node in plan(names(20)).nodes)


def test_a_node_is_found_by_its_name() -> None:
    addresses = plan(names(2))
    assert addresses.node("node2") == addresses.nodes[1]
    with pytest.raises(KeyError):
        addresses.node("node3")
