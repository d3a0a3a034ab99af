"""What decides goes away: the API server, the leader of two operators, Prometheus."""

from __future__ import annotations

import os
import time

from tests.cluster.faults.load import Load, address_of, two
from tests.cluster.faults.monitoring import Prometheus
from tests.cluster.operator.pipelines import Installation, Pipelines, eventually
from tests.cluster.testing import Cluster
from tools.cluster import faults

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
        until = time.monotonic() + OUTAGE_SECONDS
        try:
            assert not cluster.kubectl.succeeds("get", "--raw", "/readyz", seconds=10)
            while time.monotonic() < until:
                # Jobs that came before it and jobs that come now.
                load.wait_ended(5, 30)
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


def test_the_leader_of_two_operators_is_killed(
    pipelines: Pipelines, installation: Installation
) -> None:
    pipelines.write(two("twins", scaling={"mode": "Auto", "budget": 4}))
    pipelines.settled("twins")
    installation.scale(2)
    try:
        first = installation.leader()
        assert first in installation.pods()
        assert len(installation.pods()) == 2
        with Load(address_of(pipelines, "twins")) as load:
            load.wait_busy()
            before = pipelines.pods("twins")
            installation.kill(first)
            pipelines("scale", "deployment/twins-dit-small", "--replicas=3")
            other = eventually(
                "another leads",
                60,
                lambda: (one := installation.leader()) not in ("", first) and one,
            )
            assert other in installation.pods()

            def mended() -> bool:
                found = pipelines.json("get", "deployment", "twins-dit-small")
                return bool(found["spec"]["replicas"] == 2)

            eventually("the other puts right what was changed meanwhile", 40, mended)
            pipelines.settled("twins")
            load.check()
        assert len(set(before.values()) & set(pipelines.pods("twins").values())) >= len(before) - 1
    finally:
        installation.scale(1)
    eventually("one is left", 60, lambda: installation.leader() in installation.pods())


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
