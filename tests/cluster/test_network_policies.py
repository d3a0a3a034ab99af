"""Network policies are enforced: who may not reach a pod does not, and who may does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.testing import (
    APP,
    PYTHON,
    Cluster,
    Namespace,
    archive,
    container,
    reaches,
)


@pytest.fixture(scope="module")
def addresses(cluster: Cluster, namespace: Namespace) -> dict[str, str]:
    """A server on the first node, and a friend and a stranger on each of two."""
    cluster.load(archive(cluster.layout))
    nodes = cluster.nodes[:2]
    pods = {"server": (nodes[0], "server")}
    for number, node in enumerate(nodes):
        pods |= {f"{role}-{number}": (node, role) for role in ("friend", "stranger")}
    probe = {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1}
    namespace.apply(
        *(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"role": role}},
                "spec": {
                    "nodeName": node,
                    "containers": [
                        container(
                            readinessProbe=probe,
                            ports=[{"name": "echo", "containerPort": 7000}],
                        )
                    ],
                },
            }
            for name, (node, role) in pods.items()
        )
    )
    namespace("wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s")
    found = {item["metadata"]["name"]: item["status"]["podIP"] for item in namespace.pods("role")}
    assert set(found) == set(pods)
    return found


@pytest.fixture
def policy(namespace: Namespace) -> Iterator[Callable[..., None]]:
    """Apply a policy, for one test."""

    def apply(**spec: Any) -> None:
        namespace.apply(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "tested"},
                "spec": spec,
            }
        )

    yield apply
    namespace("delete", "networkpolicy", "tested", "--ignore-not-found")


FRIENDS = {"podSelector": {"matchLabels": {"role": "friend"}}}
SERVERS = {"matchLabels": {"role": "server"}}


@pytest.mark.smoke
def test_only_friends_reach_the_server_and_only_at_its_port(
    namespace: Namespace,
    addresses: dict[str, str],
    policy: Callable[..., None],
    until: Callable[..., None],
) -> None:
    server = addresses["server"]
    assert all(reaches(namespace, name, server) for name in addresses if name != "server")
    rule = {"from": [FRIENDS], "ports": [{"port": "echo"}]}
    policy(podSelector=SERVERS, ingress=[rule])
    until("the policy", 20, lambda: not reaches(namespace, "stranger-1", server))
    assert not reaches(namespace, "stranger-0", server)
    for friend in ("friend-0", "friend-1"):
        assert reaches(namespace, friend, server)
        assert not reaches(namespace, friend, server, 8080)
    # Its own node still asks whether it is ready, at that very port.
    namespace("wait", "--for=condition=Ready", "pod/server", "--timeout=10s")
    assert reaches(namespace, "server", addresses["stranger-1"])
    namespace("delete", "networkpolicy", "tested")
    until("the policy's end", 20, lambda: reaches(namespace, "stranger-1", server))


def test_a_pod_that_may_speak_to_the_server_alone_reaches_nobody_else(
    namespace: Namespace,
    addresses: dict[str, str],
    policy: Callable[..., None],
    until: Callable[..., None],
) -> None:
    policy(
        podSelector={"matchLabels": {"role": "stranger"}},
        policyTypes=["Egress"],
        egress=[{"to": [{"podSelector": SERVERS}]}],
    )
    friend = addresses["friend-0"]
    until("the policy", 20, lambda: not reaches(namespace, "stranger-1", friend))
    assert reaches(namespace, "stranger-1", addresses["server"])
    assert reaches(namespace, "friend-1", friend)
    # Names are known all the same; the API server, which nobody allowed, is not reached.
    code = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"
    address = namespace("exec", "stranger-1", "--", PYTHON, "-c", code).strip()
    assert not reaches(namespace, "stranger-1", address, 443)
    assert reaches(namespace, "friend-1", address, 443)


def test_a_policy_of_another_namespace_is_of_no_effect(
    cluster: Cluster,
    namespace: Namespace,
    addresses: dict[str, str],
    until: Callable[..., None],
) -> None:
    with cluster.namespace("apart") as apart:
        apart.apply(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "nobody"},
                "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "locked"},
                "spec": {"containers": [container()]},
            },
        )
        apart("wait", "--for=condition=Ready", "pod/locked", "--timeout=60s")
        until("the policy", 20, lambda: not reaches(apart, "locked", addresses["server"]))
        assert reaches(namespace, "stranger-0", addresses["server"])
        locked = apart.json("get", "pod", "locked")["status"]["podIP"]
        assert not reaches(namespace, "stranger-0", locked)
        answer = namespace("exec", "friend-1", "--", PYTHON, APP, "ask", addresses["server"])
        assert answer.startswith("server ")
