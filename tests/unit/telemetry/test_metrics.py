"""The metrics: their names, their values as scraped, and the HTTP server."""

from __future__ import annotations

import re
import socket
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from disagfusion.telemetry import catalog, metrics
from disagfusion.telemetry.catalog import CATALOG, Kind
from disagfusion.telemetry.operator_metrics import OperatorMetrics


def scrape(address: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def test_names_follow_the_conventions() -> None:
    assert len({metric.name for metric in CATALOG}) == len(CATALOG) > 20
    for metric in CATALOG:
        assert re.fullmatch(r"disagfusion(_[a-z]+)+", metric.name), metric.name
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert metric.help.endswith("."), metric.name
        assert not any("id" in label.split("_") or "job" in label for label in metric.labels)


def test_every_metric_of_the_catalog_is_exported_by_a_role_and_nothing_else() -> None:
    gateway = metrics.new_registry("gateway")
    metrics.GatewayMetrics(gateway, pipeline="digits")
    metrics.GrpcMetrics(gateway)
    metrics.BalancerMetrics(gateway, pipeline="digits", reasons=("balanced",))
    stage = metrics.new_registry("dit")
    metrics.StageMetrics(stage, pipeline="digits", stage="dit", pool="default")
    operator = metrics.new_registry("operator")
    OperatorMetrics(operator)
    exported: set[str] = set()
    for registry in (gateway, stage, operator):
        for family in registry.collect():
            if family.name.startswith("disagfusion"):
                suffix = "_total" if family.type == "counter" else ""
                exported.add(family.name + suffix)
    assert exported == {metric.name for metric in CATALOG}


def test_stage_metrics_are_scraped_with_their_labels() -> None:
    registry = metrics.new_registry("dit")
    stage = metrics.StageMetrics(registry, pipeline="digits", stage="dit", pool="a10")
    stage.queue.set(3)
    stage.accelerator_seconds("busy").inc(1.5)
    stage.compute_seconds.observe(0.02)
    stage.transferred("ucx/shm", "received", nbytes=4096, seconds=0.25)
    stage.transfer_failed("ucx", "sent", "lost")
    stage.slots("free").set(2)
    stage.engine_restarted("crashed")
    stage.prompt_cache("hit")
    stage.stage_failed("out_of_memory")
    server = metrics.serve("127.0.0.1:0", registry)
    try:
        samples = scrape(server.address)
    finally:
        server.close()
    common = {"pipeline": "digits", "stage": "dit", "pool": "a10"}
    received = {**common, "transport": "ucx/shm", "direction": "received"}
    assert samples["disagfusion_stage_queue_jobs"] == [(common, 3)]
    assert samples["disagfusion_accelerator_seconds_total"] == [({**common, "state": "busy"}, 1.5)]
    assert samples["disagfusion_compute_seconds_count"] == [(common, 1)]
    assert samples["disagfusion_transfer_bytes_total"] == [(received, 4096)]
    assert samples["disagfusion_transfer_seconds_total"] == [(received, 0.25)]
    assert ({**received, "outcome": "done"}, 1) in samples["disagfusion_transfers_total"]
    assert samples["disagfusion_slots"] == [({**common, "state": "free"}, 2)]
    assert samples["disagfusion_engine_restarts_total"] == [({**common, "reason": "crashed"}, 1)]
    assert samples["disagfusion_build_info"][0][0]["component"] == "dit"
    assert samples["process_resident_memory_bytes"][0][1] > 1_000_000


def test_gateway_metrics_are_scraped_with_their_labels() -> None:
    registry = metrics.new_registry("gateway")
    gateway = metrics.GatewayMetrics(registry, pipeline="digits")
    gateway.queue.set(7)
    gateway.job_ended("succeeded", 1.25)
    gateway.job_refused("QUEUE_FULL")
    gateway.job_retried("dit", "engine_lost")
    gateway.stage_jobs("dit", "running").inc()
    gateway.workers("dit", "default", "ready").set(2)
    gateway.stale_result("dit")
    gateway.store_commit_seconds.observe(0.001)
    grpc = metrics.GrpcMetrics(registry)
    grpc.message_bytes("/disagfusion.v1.GenerationService/SubmitJob", "received").inc(100)
    server = metrics.serve("127.0.0.1:0", registry)
    try:
        samples = scrape(server.address)
    finally:
        server.close()
    pipeline = {"pipeline": "digits"}
    assert samples["disagfusion_gateway_queue_jobs"] == [(pipeline, 7)]
    assert ({**pipeline, "outcome": "succeeded"}, 1) in samples["disagfusion_jobs_total"]
    assert ({**pipeline, "outcome": "succeeded"}, 1.25) in samples["disagfusion_job_seconds_sum"]
    assert samples["disagfusion_stale_results_total"] == [({**pipeline, "stage": "dit"}, 1)]
    assert samples["disagfusion_store_commit_seconds_count"] == [(pipeline, 1)]
    assert samples["disagfusion_grpc_message_bytes_total"][0][1] == 100


def test_what_has_not_happened_is_zero_from_the_start() -> None:
    registry = metrics.new_registry("gateway")
    metrics.GatewayMetrics(registry, pipeline="digits").job_accepted()
    metrics.StageMetrics(registry, pipeline="digits", stage="dit", pool="a10").checksum_failed()
    balancer = metrics.BalancerMetrics(registry, pipeline="digits", reasons=("wait", "balanced"))
    balancer.decided("wait")
    balancer.desired("dit", "a10").set(3)
    balancer.accelerators("a10", "usable").set(8)
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in registry.collect()
        for sample in family.samples
    }
    assert found["disagfusion_jobs_accepted_total", "digits"] == 1
    assert found["disagfusion_checksum_failures_total", "a10", "digits", "dit"] == 1
    for outcome in ("succeeded", "failed", "cancelled", "expired"):
        assert found["disagfusion_jobs_total", *sorted(["digits", outcome])] == 0
        assert found["disagfusion_job_seconds_count", *sorted(["digits", outcome])] == 0
    for stage in ("encoder", "dit", "decoder"):
        for status in ("waiting", "transferring", "running"):
            labels = sorted(["digits", stage, status])
            assert found["disagfusion_stage_jobs", *labels] == 0
    assert found["disagfusion_balancer_decisions_total", "digits", "wait"] == 1
    assert found["disagfusion_balancer_decisions_total", "balanced", "digits"] == 0
    assert found["disagfusion_desired_replicas", "a10", "digits", "dit"] == 3
    assert found["disagfusion_pool_accelerators", "a10", "digits", "usable"] == 8


@pytest.mark.parametrize("listen", ["", "9090", ":9090", "127.0.0.1", "127.0.0.1:x", "h:-1"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        metrics.serve(listen, metrics.new_registry("dit"))


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            metrics.serve(f"127.0.0.1:{port}", metrics.new_registry("dit"))


def test_a_closed_server_frees_its_port_and_its_thread() -> None:
    before = threading.active_count()
    server = metrics.serve("127.0.0.1:0", metrics.new_registry("dit"))
    server.close()
    assert threading.active_count() == before
    metrics.serve(server.address, metrics.new_registry("dit")).close()


def test_the_catalog_is_found_by_module_scan() -> None:
    assert catalog.JOBS in CATALOG
    assert catalog.BUILD_INFO in CATALOG


def test_the_operators_metrics_count_what_it_does() -> None:
    registry = metrics.new_registry("operator")
    measured = OperatorMetrics(registry)
    measured.look(0.5, False)
    measured.look(1.0, True)
    measured.call("patch", "deployments", 200)
    measured.call("patch", "deployments", 0)
    measured.leads(True)
    measured.follow(lambda: 7)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("disagfusion_operator_reconcile_seconds_count") == 2
    assert value("disagfusion_operator_reconcile_errors_total") == 1
    calls = {"verb": "patch", "resource": "deployments"}
    assert value("disagfusion_operator_api_calls_total", **calls, status="200") == 1
    assert value("disagfusion_operator_api_calls_total", **calls, status="0") == 1
    assert value("disagfusion_operator_leads") == 1
    assert value("disagfusion_operator_pipelines") == 7
