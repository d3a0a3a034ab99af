"""An autoscaler of somebody else decides how many gateways there are."""

from __future__ import annotations

from typing import Any

import pytest
from bench import Bench
from disagfusion_operator.k8s.kinds import AUTOSCALER, DEPLOYMENT, SCALED_OBJECT
from disagfusion_operator.k8s.port import OPERATOR, Kind, Object

REPLICAS = ("spec", "replicas")
SHARED: dict[str, Any] = {
    "replicas": 2,
    "store": {"postgresql": {"urlSecret": {"name": "db", "key": "url"}}},
}


def autoscaler(bench: Bench, kind: Kind = AUTOSCALER) -> Object:
    found = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"namespace": "demo", "name": "doors", "uid": "h", "resourceVersion": "5"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "digits-gateway"}},
    }
    bench.cache.put(kind, found)
    return found


def scaled(bench: Bench, replicas: int) -> None:
    bench.cluster.change(
        DEPLOYMENT, "demo", "digits-gateway", *REPLICAS, value=replicas, by="autoscaler"
    )


class Seen:
    """The numbers of gateways that there have been since."""

    def __init__(self, bench: Bench) -> None:
        self.numbers: set[Any] = set()
        self._before, bench.cluster.follow = bench.cluster.follow, self

    def __call__(self, kind: Kind, found: Object, gone: bool) -> None:
        if kind == DEPLOYMENT and found["metadata"]["name"] == "digits-gateway":
            self.numbers.add(found["spec"].get("replicas"))
        self._before(kind, found, gone)


@pytest.mark.parametrize("kind", [AUTOSCALER, SCALED_OBJECT])
async def test_another_autoscaler_of_the_gateways_is_not_fought(kind: Kind) -> None:
    bench = Bench()
    await bench.settle(gateway=SHARED)
    assert bench.deployment("gateway")["spec"]["replicas"] == 2
    seen = Seen(bench)
    other = autoscaler(bench, kind)
    await bench.settle()
    # It has not decided anything yet: there are as many as before, at any time.
    assert seen.numbers == {2}
    assert OPERATOR not in bench.cluster.owners(DEPLOYMENT, "demo", "digits-gateway", REPLICAS)
    scaled(bench, 4)
    await bench.settle()
    await bench.settle(gateway={**SHARED, "resources": {"limits": {"memory": "1Gi"}}})
    assert seen.numbers == {2, 4}
    bench.calls()
    await bench.look()
    assert bench.calls() == []
    bench.cache.drop(kind, other)
    await bench.settle()
    assert bench.deployment("gateway")["spec"]["replicas"] == 2


async def test_a_deployment_that_an_autoscaler_waits_for_begins_with_what_is_specified() -> None:
    bench = Bench()
    autoscaler(bench)
    seen = Seen(bench)
    await bench.settle(gateway=SHARED)
    await bench.settle()
    assert seen.numbers == {2}


async def test_sqlite_is_for_one_gateway_whatever_others_say() -> None:
    bench = Bench()
    autoscaler(bench)
    await bench.settle()
    scaled(bench, 3)
    await bench.settle()
    assert bench.deployment("gateway")["spec"]["replicas"] == 1
