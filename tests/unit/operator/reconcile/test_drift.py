"""What others did to an object by hand: what is told, and what is mended."""

from __future__ import annotations

from typing import Any

import pytest
from bench import Bench
from disagfusion_operator.k8s.kinds import DEPLOYMENT, NETWORK_POLICY, SERVICE
from disagfusion_operator.k8s.port import Kind, Object
from disagfusion_operator.reconcile.drift import differences

RULE = {"from": [{"podSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 1}]}


@pytest.mark.parametrize(
    ("wanted", "found", "where"),
    [
        ({"selector": {"a": "b"}}, {"selector": {"a": "b", "c": "d"}}, '.selector.c="d"'),
        (
            {"podSelector": {"matchLabels": {"a": "b"}}},
            {"podSelector": {"matchLabels": {"a": "b", "c": "d"}}},
            '.podSelector.matchLabels.c="d"',
        ),
        ({"podSelector": {}}, {"podSelector": {"matchLabels": {"c": "d"}}}, ""),
        ({"nodeSelector": {"a": "b"}}, {"nodeSelector": {"a": "b", "c": ""}}, '.nodeSelector.c=""'),
        ({"ingress": [RULE]}, {"ingress": [{**RULE, "ports": [{"port": 1}, {"port": 2}]}]}, ""),
        # Without an end it is a port, with one it is many.
        (
            {"ingress": [RULE]},
            {"ingress": [{**RULE, "ports": [{"port": 1, "endPort": 9}]}]},
            ".ingress[0].ports[0].endPort=9",
        ),
        # No namespace is the policy's own; an empty selector is all of them.
        (
            {"ingress": [RULE]},
            {"ingress": [{**RULE, "from": [{**RULE["from"][0], "namespaceSelector": {}}]}]},
            ".ingress[0].from[0].namespaceSelector={}",
        ),
        ({"ingress": [{"ports": []}]}, {"ingress": [{"from": [{"podSelector": {}}]}]}, ""),
        (
            {"secret": {"items": [{"key": "k", "path": "k"}]}},
            {"secret": {"items": [{"key": "k", "path": "k"}, {"key": "t", "path": "t"}]}},
            ".secret.items=2 items",
        ),
    ],
)  # fmt: skip
def test_what_is_added_to_a_whole_is_told(wanted: Object, found: Object, where: str) -> None:
    (told,) = differences(wanted, found)
    assert where in told
    assert differences(wanted, wanted) == differences(found, found) == []


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        # A Service's ports and a container's variables are everybody's.
        ({"ports": [{"port": 1}]}, {"ports": [{"port": 1}, {"port": 2}]}),
        ({"env": [{"name": "a"}]}, {"env": [{"name": "a"}, {"name": "b"}]}),
        ({"labels": {"a": "b"}}, {"labels": {"a": "b", "c": "d"}}),
        # What the server leaves out, or adds.
        ({"selector": {"a": "b"}}, {"selector": {"a": "b", "matchExpressions": None}}),
        ({"ingress": [{"ports": []}]}, {"ingress": [{"ports": [], "from": []}]}),
        ({"fieldRef": {"fieldPath": "f"}}, {"fieldRef": {"fieldPath": "f", "apiVersion": "v1"}}),
    ],
)  # fmt: skip
def test_what_is_everybodys_is_let_alone(wanted: Object, found: Object) -> None:
    assert differences(wanted, found) == []


async def test_what_is_added_by_hand_and_breaks_an_object_goes() -> None:
    bench = Bench()
    mine = {"key": "gpu", "operator": "Exists"}
    await bench.settle(pools={"cpu": {"tolerations": [mine]}})
    everybody = {"ports": [{"protocol": "TCP", "port": 7420}, {"protocol": "TCP", "port": 7421}]}
    rules = bench.cluster.peek(NETWORK_POLICY, "demo", "digits-gateway")["spec"]["ingress"]
    assert rules[0]["ports"] == everybody["ports"][:1]
    labels = {"disagfusion.dev/pipeline": "digits", "no": "pod"}
    edits: list[tuple[Kind, str, tuple[str, ...], Any]] = [
        (SERVICE, "digits-dit", ("selector",), labels),
        (NETWORK_POLICY, "digits-stages", ("podSelector", "matchLabels"), labels),
        (NETWORK_POLICY, "digits-gateway", ("ingress",), [everybody, *rules[1:]]),
        (DEPLOYMENT, "digits-dit-cpu", ("template", "spec", "tolerations"), [mine, {}]),
    ]
    for kind, name, path, value in edits:
        before = bench.cluster.peek(kind, "demo", name)["spec"]
        bench.cluster.change(kind, "demo", name, "spec", *path, value=value)
        assert bench.cluster.peek(kind, "demo", name)["spec"] != before
        await bench.settle()
        assert bench.cluster.peek(kind, "demo", name)["spec"] == before
        bench.calls()
        await bench.look()
        assert bench.calls() == []


async def test_what_cannot_be_taken_away_is_not_applied_again_and_again() -> None:
    bench = Bench()
    await bench.settle()

    def insist(found: Object) -> None:
        if found["metadata"]["name"] == "digits-dit":
            found["spec"]["selector"]["mesh"] = "true"

    bench.cluster.normalize = insist
    bench.cluster.change(SERVICE, "demo", "digits-dit", "spec", "selector", value={"no": "where"})
    await bench.settle()
    selector = bench.cluster.peek(SERVICE, "demo", "digits-dit")["spec"]["selector"]
    assert selector["disagfusion.dev/stage"] == "dit"
    bench.calls()
    await bench.look()
    assert bench.calls() == []
