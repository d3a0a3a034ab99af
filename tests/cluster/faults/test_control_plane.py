"""What decides goes away: the API server, the leader of two operators, Prometheus."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.cluster.faults.load import Load, address_of, two
from tests.cluster.faults.monitoring import Prometheus
from tests.cluster.operator.pipelines import (
    RELEASE,
    SYSTEM,
    Installation,
    Pipelines,
    end_of,
    eventually,
    state_of,
)
from tests.cluster.testing import Cluster
from tools.cluster import faults

PATIENT = {"livenessProbe": {"failureThreshold": 100}}
"""The kubelet would end what is stopped before it has been stopped for long."""
OUTAGE_SECONDS = float(os.environ.get("DISAGFUSION_API_OUTAGE_SECONDS", "20"))


def restarts(pipelines: Pipelines, name: str) -> dict[str, int]:
    """Return how often the containers of each pod of a pipeline have begun again."""
    items = pipelines.json("get", "pods", "-l", f"disagfusion.dev/pipeline={name}")["items"]
    return {
        one["metadata"]["uid"]: sum(
            status["restartCount"] for status in one["status"]["containerStatuses"]
        )
        for one in items
    }


def test_the_api_server_is_away(
    cluster: Cluster, pipelines: Pipelines, installation: Installation
) -> None:
    pipelines.write(two("away"))
    pipelines.settled("away")
    before = restarts(pipelines, "away")
    with Load(address_of(pipelines, "away")) as load:
        load.wait_busy()
        faults.stop_apiserver(cluster.layout)
        load.assert_busy()
        until = time.monotonic() + OUTAGE_SECONDS
        try:
            assert not cluster.kubectl.succeeds("get", "--raw", "/readyz", seconds=10)
            while time.monotonic() < until:
                # Jobs that came before it and jobs that come now.
                load.wait_ended(5, 30)
            load.assert_busy()
            assert not cluster.kubectl.succeeds("get", "--raw", "/readyz", seconds=10)
        finally:
            faults.start_apiserver(cluster.layout)
        eventually("an operator leads", 120, lambda: installation.leader() in installation.pods())
        pipelines("delete", "service", "away-dit")
        eventually(
            "it mends", 120, lambda: "away-dit" in pipelines("get", "services", "-o", "name")
        )
        load.check()
    assert restarts(pipelines, "away") == before


@pytest.fixture
def twins(release: Installation) -> Iterator[Installation]:
    """Two operators."""
    release.scale(2)
    yield release
    release.scale(1)
    eventually("one is left", 60, lambda: release.leader() in release.pods())


def test_the_leader_of_two_operators_is_killed(pipelines: Pipelines, twins: Installation) -> None:
    pipelines.write(two("twins", scaling={"mode": "Auto", "budget": 4}))
    pipelines.settled("twins")
    operators, first, holder = twins.pods(), twins.leader(), twins.holder()
    begun = state_of(twins.kubectl, SYSTEM, first)["restartCount"]
    assert len(operators) == 2
    assert first in operators
    with Load(address_of(pipelines, "twins")) as load:
        load.wait_busy()
        before = pipelines.pods("twins")
        twins.kill(first)
        assert twins.holder() == holder, "it was handed over: that was no crash"
        load.assert_busy()
        pipelines("scale", "deployment/twins-dit-small", "--replicas=3")
        eventually("another leads", 60, lambda: twins.holder() not in ("", holder))

        def mended() -> bool:
            found = pipelines.json("get", "deployment", "twins-dit-small")
            return bool(found["spec"]["replicas"] == 2)

        eventually("the other puts right what was changed meanwhile", 40, mended)
        pipelines.settled("twins")
        load.check()
    assert state_of(twins.kubectl, SYSTEM, first)["restartCount"] == begun + 1
    assert twins.pods() == operators
    assert len(set(before.values()) & set(pipelines.pods("twins").values())) >= len(before) - 1


def generations(pipelines: Pipelines) -> dict[str, int]:
    """Return how often each Deployment, Service and so on has been changed."""
    kinds = "deployments,services,networkpolicies,poddisruptionbudgets,configmaps"
    return {
        f"{one['kind']} {one['metadata']['name']}": one["metadata"].get("generation", 0)
        for one in pipelines.json("get", kinds)["items"]
    }


def test_a_leader_that_hung_acts_no_more(pipelines: Pipelines, twins: Installation) -> None:
    """Two operators believe that they lead: one of them hung while the other was elected.

    When it goes on, it has what happened meanwhile still to hear, and a plan that is out of date.
    """
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "operator", **PATIENT}]}}}}
    twins.kubectl("-n", SYSTEM, "patch", "deployment", RELEASE, "-p", json.dumps(patch))
    twins.scale(2)
    eventually("one leads", 60, lambda: twins.leader() in twins.pods())
    pipelines.write(two("hung", scaling={"mode": "Auto", "budget": 4}))
    pipelines.settled("hung")
    first, holder = twins.leader(), twins.holder()
    with Load(address_of(pipelines, "hung")) as load:
        load.wait_busy()
        container = twins.signal(first, signal.SIGSTOP)
        load.assert_busy()
        try:
            # What it knows is wrong when it goes on: the other has made it three DiTs.
            wider = {"dit": {"minReplicas": 3}}
            pipelines.write(two("hung", stages=wider, scaling={"mode": "Auto", "budget": 5}))
            eventually("another leads", 60, lambda: twins.holder() not in ("", holder))
            assert end_of(twins.kubectl, SYSTEM, first, container) is None, "it was ended"
            assert pipelines.settled("hung")["ratio"] == "1:3:1"
            written, pods = generations(pipelines), pipelines.pods("hung")
            other = twins.holder()
            load.assert_busy()
        finally:
            twins.signal(first, signal.SIGCONT)
        ended = eventually(
            "it ends itself", 30, lambda: end_of(twins.kubectl, SYSTEM, first, container)
        )
        assert ended["exitCode"] == 1, ended
        assert generations(pipelines) == written
        load.wait_ended(5, 60)
        assert generations(pipelines) == written
        assert twins.holder() == other
        load.check()
    assert pipelines.pods("hung") == pods
    said = twins.kubectl("-n", SYSTEM, "logs", first, "--previous")
    assert "leadership lost" in said


def test_prometheus_is_away(pipelines: Pipelines, prometheus: Prometheus) -> None:
    scaling = {
        "mode": "Auto",
        "budget": 4,
        "periodSeconds": 2,
        "prometheus": {"url": prometheus.url, "windowSeconds": 8},
    }
    pipelines.write(two("blind", scaling=scaling))
    pipelines.settled("blind")
    pods = pipelines.pods("blind")
    addresses = [f"{pipelines.json('get', 'pod', pod)['status']['podIP']}:9464" for pod in pods]

    def available(status: str) -> bool:
        return bool(pipelines.condition("blind", "MetricsAvailable").get("status") == status)

    prometheus.start(addresses)
    with Load(address_of(pipelines, "blind")) as load:
        load.wait_busy()
        eventually("metrics are there", 60, lambda: available("True"))
        prometheus.stop()
        load.assert_busy()
        eventually("metrics are missed", 60, lambda: available("False"))
        assert pipelines.condition("blind", "ScalingActive")["status"] == "False"
        assert pipelines.condition("blind", "MetricsAvailable")["message"]
        load.wait_ended(10, 60)
        # Nobody knows the load, so nothing is taken away.
        assert pipelines.pods("blind") == pods
        prometheus.start(addresses)
        eventually("metrics are there again", 60, lambda: available("True"))
        eventually(
            "and decisions rest on them",
            30,
            lambda: pipelines.condition("blind", "ScalingActive")["status"] == "True",
        )
        load.check()
    assert pipelines.status("blind")["ratio"] == "1:2:1"
