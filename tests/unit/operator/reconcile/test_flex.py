"""A pipeline whose pods change their stage in place."""

from __future__ import annotations

from typing import Any

from bench import Bench
from disagfusion_operator.api.base import STAGES
from disagfusion_operator.k8s.kinds import DEPLOYMENT, POD
from disagfusion_operator.k8s.port import BALANCER, Object
from disagfusion_operator.reconcile.gateways import Fleet

FLEX: dict[str, Any] = {"cpu": {"flex": {}}}
LABEL = "disagfusion.dev/stage"
MARK = "disagfusion.dev/stage-changes-from"


def pods(bench: Bench) -> list[Object]:
    return bench.nodes.pods(component="flex")


async def label(bench: Bench, *stages: str) -> None:
    """Have pods be of these stages, as the balancer does it."""
    for pod, stage in zip(pods(bench), stages, strict=True):
        name = pod["metadata"]["name"]
        await bench.cluster.relabel(POD, "demo", name, {LABEL: stage}, {})


async def settled(**spec: Any) -> Bench:
    bench = Bench()
    await bench.settle(pools=FLEX, **spec)
    await label(bench, "encoder", "dit", "decoder")
    await bench.settle()
    return bench


async def test_it_has_one_deployment_for_all_stages() -> None:
    bench = await settled()
    assert bench.cluster.names(DEPLOYMENT) == ["digits-flex-cpu", "digits-gateway"]
    assert bench.deployment("flex")["spec"]["replicas"] == 3
    owners = bench.cluster.owners(DEPLOYMENT, "demo", "digits-flex-cpu", ("spec", "replicas"))
    assert owners == [BALANCER]


async def test_stages_are_counted_by_the_labels_of_pods() -> None:
    bench = Bench()
    status = await bench.settle(pools=FLEX)
    assert status["ratio"] == "0:3:0"
    assert status["state"] == "Loading"
    assert "no replica of encoder and decoder is ready" in bench.condition("Ready")["message"]
    await label(bench, "encoder", "dit", "decoder")
    status = await bench.settle()
    assert status["ratio"] == "1:1:1"
    assert status["state"] == "Ready"
    assert status["stages"]["encoder"]["pools"]["cpu"]["desired"] == 1
    assert status["stages"]["encoder"]["image"] == "registry/flex:1"
    assert bench.condition("Progressing")["reason"] == "Settled"


async def test_a_pod_whose_worker_does_not_serve_its_stage_yet_is_starting() -> None:
    bench = await settled()
    name = pods(bench)[0]["metadata"]["name"]
    await bench.cluster.relabel(POD, "demo", name, {LABEL: "decoder"}, {MARK: "encoder"})
    status = await bench.settle()
    assert status["ratio"] == "0:1:1"
    assert status["stages"]["decoder"]["pools"]["cpu"]["starting"] == 1
    await bench.cluster.relabel(POD, "demo", name, {}, {MARK: None})
    assert (await bench.settle())["ratio"] == "0:1:2"


async def test_workers_are_told_with_the_pipelines_certificates() -> None:
    bench = Bench()
    data = dict.fromkeys(("tls.crt", "tls.key", "ca.crt"), "Y2VydA==")
    metadata = {"namespace": "demo", "name": "certs"}
    bench.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    tls = {"secretName": "certs", "serverName": "pipeline"}
    await bench.settle(pools=FLEX, transport={"backend": "TCP", "tls": tls})
    found = bench.scaling.views[-1].worker_tls
    assert found is not None
    assert found.server_name == "pipeline"
    bench.reconciler.close()


async def test_at_rest_nothing_is_asked() -> None:
    bench = await settled()
    bench.calls()
    for _ in range(10):
        await bench.look()
    assert bench.calls() == []


async def test_a_label_that_changes_replaces_no_pods() -> None:
    bench = await settled()
    before = {pod["metadata"]["uid"] for pod in pods(bench)}
    await label(bench, "dit", "encoder", "decoder")
    await bench.settle()
    assert {pod["metadata"]["uid"] for pod in pods(bench)} == before


async def test_stages_of_a_pool_become_pods_that_change_once_they_have_finished() -> None:
    bench = Bench()
    await bench.settle()
    bench.nodes.patient = True
    bench.write(pools=FLEX)
    await bench.look()
    assert bench.condition("Progressing")["reason"] == "RemovingPool"
    for _ in range(3):
        bench.nodes.settle()
        await bench.look()
    # They finish what they have.
    assert len([pod for pod in bench.cluster.all(POD)
                if pod["metadata"].get("deletionTimestamp")]) == 3  # fmt: skip
    assert "digits-dit-cpu" in bench.cluster.names(DEPLOYMENT)
    bench.nodes.finish()
    bench.nodes.patient = False
    await bench.settle()
    assert bench.cluster.names(DEPLOYMENT) == ["digits-flex-cpu", "digits-gateway"]
    bench.write(pools={"cpu": {"flex": None}})
    await bench.settle()
    assert bench.cluster.names(DEPLOYMENT) == [
        "digits-decoder-cpu", "digits-dit-cpu", "digits-encoder-cpu", "digits-gateway",
    ]  # fmt: skip


async def test_a_paused_pipeline_keeps_the_pods_that_others_are_to_replace() -> None:
    bench = Bench()
    await bench.settle()
    old = {pod["metadata"]["uid"] for pod in bench.cluster.all(POD)}
    begun = ["digits-decoder-cpu", "digits-dit-cpu", "digits-encoder-cpu"]
    # As the balancer does where nothing is to change.
    bench.scaling.wanted = dict.fromkeys(((stage, "cpu") for stage in STAGES), 0)
    bench.write(pools=FLEX, scaling={"paused": True})
    status = await bench.settle()
    assert {pod["metadata"]["uid"] for pod in bench.cluster.all(POD)} == old
    assert bench.deployment("dit")["spec"]["replicas"] == 1
    assert bench.cluster.names(DEPLOYMENT) == [*begun, "digits-flex-cpu", "digits-gateway"]
    assert (status["ratio"], status["state"]) == ("1:1:1", "Paused")
    held = bench.condition("Progressing")
    assert held["reason"] == "Paused"
    assert "no longer runs on cpu" in held["message"]
    assert "scaling.paused" in held["message"]
    # Taken back, nothing has happened; resumed, they go.
    bench.scaling.wanted = {}
    bench.write(scaling={"paused": True})
    await bench.settle()
    assert {pod["metadata"]["uid"] for pod in bench.cluster.all(POD)} == old
    bench.write(pools=FLEX)
    await bench.settle()
    assert bench.cluster.names(DEPLOYMENT) == ["digits-flex-cpu", "digits-gateway"]


async def test_a_pool_that_is_taken_from_a_paused_pipeline_keeps_its_pods() -> None:
    bench = Bench()
    await bench.settle(pools={"cpu": {}, "other": {}}, stages={"decoder": {"pools": ["other"]}})
    bench.scaling.wanted = {("decoder", "cpu"): 0}
    bench.write(pools={"cpu": {}}, scaling={"paused": True})
    assert (await bench.settle())["ratio"] == "1:1:1"
    assert bench.deployment("decoder", "other")["spec"]["replicas"] == 1
    bench.scaling.wanted = {}
    bench.write(pools={"cpu": {}})
    await bench.settle()
    assert "digits-decoder-other" not in bench.cluster.names(DEPLOYMENT)


async def test_a_new_version_replaces_them_whatever_jobs_there_are() -> None:
    bench = await settled()
    old = pods(bench)[0]["metadata"]["annotations"]["disagfusion.dev/version"]
    bench.gateways.state = Fleet(2, {("encoder", old): 1, ("decoder", old): 1})
    bench.write(pools={"cpu": {"flex": {"image": "registry/flex:2"}}})
    await bench.look()
    deployment = bench.deployment("flex")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/flex:2"
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == "25%"
    assert bench.scaling.views[-1].hold
    await bench.settle()
    versions = {pod["metadata"]["annotations"]["disagfusion.dev/version"] for pod in pods(bench)}
    assert len(versions) == 1
    assert old not in versions
    assert not bench.scaling.views[-1].hold


async def test_stages_on_other_pools_wait_for_old_jobs_as_ever() -> None:
    bench = Bench()
    await bench.settle(
        pools={"cpu": {"flex": {}}, "other": {}},
        stages={"encoder": {"pools": ["cpu"]}, "decoder": {"pools": ["other"]}},
    )
    await label(bench, "encoder", "dit")
    await bench.settle()
    old = pods(bench)[0]["metadata"]["annotations"]["disagfusion.dev/version"]
    bench.gateways.state = Fleet(1, {("dit", old): 1})
    bench.write(
        pools={"cpu": {"flex": {}}, "other": {}},
        stages={"encoder": {"pools": ["cpu"]}, "decoder": {"pools": ["other"]}},
        dtype="bfloat16",
    )
    await bench.settle()

    def version(component: str, pool: str) -> str:
        template = bench.deployment(component, pool)["spec"]["template"]
        found: str = template["metadata"]["annotations"]["disagfusion.dev/version"]
        return found

    assert version("flex", "cpu") != old
    assert version("decoder", "other") == old
    assert "old version" in bench.condition("Progressing")["message"]
    bench.gateways.state = Fleet()
    await bench.settle()
    assert version("decoder", "other") == version("flex", "cpu")
