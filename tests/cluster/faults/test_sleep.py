"""A pipeline that sleeps, and whose gateway is killed meanwhile."""

from __future__ import annotations

from typing import Any

from tests.cluster.faults.load import Load, address_of, two
from tests.cluster.faults.monitoring import Prometheus
from tests.cluster.operator.pipelines import SECONDS, Pipelines, eventually, kill
from tests.cluster.testing import Cluster


def sleepy(url: str) -> dict[str, Any]:
    stages = {stage: {"minReplicas": 0} for stage in SECONDS}
    scaling = {
        "mode": "Auto",
        "periodSeconds": 2,
        "scaleToZero": {"afterSeconds": 5},
        "prometheus": {"url": url, "windowSeconds": 8},
    }
    return two("sleepy", stages=stages, scaling=scaling)


def test_it_sleeps_wakes_and_remembers_what_it_accepts(
    cluster: Cluster, pipelines: Pipelines, prometheus: Prometheus
) -> None:
    pipelines.write(sleepy(prometheus.url))
    # Nobody says yet that there is no work.
    assert pipelines.settled("sleepy")["ratio"] == "1:1:1"

    def scrape() -> None:
        pods = [pipelines.json("get", "pod", pod) for pod in pipelines.pods("sleepy")]
        prometheus.stop()
        prometheus.start([f"{pod['status']['podIP']}:9464" for pod in pods])

    def workers() -> list[str]:
        return [pod for stage in SECONDS for pod in pipelines.pods("sleepy", stage)]

    scrape()
    eventually("it sleeps", 120, lambda: not workers())
    eventually("it says so", 30, lambda: pipelines.status("sleepy")["state"] == "Idle")
    (gateway,) = pipelines.pods("sleepy", "gateway")
    # It has no time to write anything down, and then goes with all that is not on its volume.
    kill(cluster.layout, cluster.kubectl, pipelines.namespace, gateway)
    pipelines("delete", "pod", gateway, "--grace-period=0", "--force")
    (gateway,) = eventually(
        "another gateway", 60, lambda: {*pipelines.pods("sleepy", "gateway")} - {gateway}
    )
    pipelines("wait", "--for=condition=Ready", f"pod/{gateway}", "--timeout=60s")
    scrape()
    with Load(address_of(pipelines, "sleepy"), first=5) as load:
        eventually("the first job is accepted", 30, lambda: load.accepted)
        eventually("it wakes", 60, workers)
        load.wait_ended(5, 120)
        load.check()
        pipelines.settled("sleepy")
        scrape()
    eventually("it sleeps again", 120, lambda: not workers())
