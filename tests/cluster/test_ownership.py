"""Children go with their owner. By name after the others: their kind is then known for a while."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster.testing import GROUP, Namespace, widget


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
    # The collector looks for new kinds every half minute.
    until(
        "the child's end",
        60,
        lambda: not namespace("get", "configmap", "owned", "--ignore-not-found"),
    )
