from __future__ import annotations

import socket

import pytest

from tools.cluster import controlplane, network
from tools.cluster.addresses import plan
from tools.cluster.errors import ClusterError
from tools.cluster.options import Options


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ClusterError, match=f"127.0.0.1:{port}, where the cluster is to listen"):
            network.require_free([("127.0.0.1", port)])
    network.require_free([("127.0.0.1", port)])


def test_a_port_is_asked_for_where_it_will_be_listened_at() -> None:
    alone = controlplane.ports(plan([]), Options(nodes=0, kwok=False))
    assert ("127.0.0.1", 6443) in alone
    whole = controlplane.ports(plan(["node1"]), Options(nodes=1))
    assert ("10.89.0.1", 6443) in whole
    assert ("127.0.0.1", 6443) not in whole
    assert set(whole) - set(alone) == {
        ("10.89.0.1", 6443),
        ("127.0.0.1", 8081),
        ("127.0.0.1", 8181),
        ("127.0.0.1", 10248),
    }
