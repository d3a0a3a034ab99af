"""What the API server and the controllers do that the operator stands on."""

from __future__ import annotations

import pytest

from tests.cluster.testing import Cluster, Namespace, widget
from tools.cluster.errors import ClusterError

pytestmark = pytest.mark.smoke


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


def test_a_service_account_without_a_role_may_nothing(namespace: Namespace) -> None:
    account = f"system:serviceaccount:{namespace.name}:default"
    with pytest.raises(ClusterError, match="cannot list resource"):
        namespace("get", "pods", f"--as={account}")
