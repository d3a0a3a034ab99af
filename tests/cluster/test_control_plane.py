"""What the API server and the controllers do that the operator stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.testing import Cluster, Namespace
from tools.cluster.errors import ClusterError

pytestmark = pytest.mark.smoke

GROUP = "tests.disagfusion.dev"


@pytest.fixture(scope="module")
def widgets(cluster: Cluster) -> Iterator[None]:
    """A kind with defaults, rules and a scale subresource."""
    name = f"widgets.{GROUP}"
    rules = [
        {
            "rule": "self.replicas <= self.maxReplicas",
            "message": "replicas must not exceed maxReplicas",
        },
        {"rule": "self.maxReplicas >= oldSelf.maxReplicas", "message": "maxReplicas never shrinks"},
    ]
    whole = {"type": "integer"}
    spec = {
        "type": "object",
        "x-kubernetes-validations": rules,
        "properties": {
            "replicas": {**whole, "default": 1},
            "maxReplicas": {**whole, "default": 5},
        },
    }
    status = {"type": "object", "properties": {"replicas": whole, "selector": {"type": "string"}}}
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}, "scale": scale},
        "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}
        },
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [version],
        },
    }
    cluster.kubectl.apply([definition])
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
    yield
    cluster.kubectl("delete", "crd", name, "--wait=false")


def widget(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": spec,
    }


def test_every_node_is_ready(cluster: Cluster) -> None:
    for node in cluster.kubectl.json("get", "nodes")["items"]:
        conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        assert conditions["Ready"] == "True", node["metadata"]["name"]


def test_defaults_are_filled_in(namespace: Namespace, widgets: None) -> None:
    namespace.apply(widget("defaults", replicas=2))
    assert namespace.json("get", "widget", "defaults")["spec"] == {"replicas": 2, "maxReplicas": 5}


def test_rules_across_fields_and_against_the_past_are_kept(
    namespace: Namespace, widgets: None
) -> None:
    namespace.apply(widget("rules", replicas=2))
    for patch, message in (
        ('{"spec": {"replicas": 9}}', "replicas must not exceed maxReplicas"),
        ('{"spec": {"maxReplicas": 4}}', "maxReplicas never shrinks"),
    ):
        with pytest.raises(ClusterError, match=message):
            namespace("patch", "widget", "rules", "--type=merge", "-p", patch)


def test_the_scale_subresource_scales_and_is_held_to_the_rules(
    namespace: Namespace, widgets: None
) -> None:
    namespace.apply(widget("scaled", replicas=1))
    namespace("scale", "widget", "scaled", "--replicas=4")
    assert namespace.json("get", "widget", "scaled")["spec"]["replicas"] == 4
    with pytest.raises(ClusterError, match="must not exceed"):
        namespace("scale", "widget", "scaled", "--replicas=6")


def test_two_managers_of_one_field_are_in_conflict(namespace: Namespace, widgets: None) -> None:
    namespace.apply(widget("managed", replicas=2), manager="one")
    with pytest.raises(ClusterError, match="conflict"):
        namespace.apply(widget("managed", replicas=3), manager="another")


def test_children_go_with_their_owner(
    namespace: Namespace, widgets: None, until: Callable[..., None]
) -> None:
    namespace.apply(widget("owner"))
    owner = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Widget",
        "name": "owner",
        "uid": namespace.json("get", "widget", "owner")["metadata"]["uid"],
    }
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "owned", "ownerReferences": [owner]},
    }
    namespace.apply(child)
    namespace("delete", "widget", "owner")
    # The collector learns of a kind that is new only every now and then.
    until(
        "the child's end",
        60,
        lambda: not namespace("get", "configmap", "owned", "--ignore-not-found"),
    )


def test_a_service_account_without_a_role_may_nothing(namespace: Namespace) -> None:
    account = f"system:serviceaccount:{namespace.name}:default"
    with pytest.raises(ClusterError, match="cannot list resource"):
        namespace("get", "pods", f"--as={account}")
