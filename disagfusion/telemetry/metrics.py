"""The metrics of the gateway and of the stage services, with their common labels bound.

Each process makes one registry with `new_registry`, the object of its role on top of it, and
serves it with `serve`. All that is exported is declared in `disagfusion.telemetry.catalog`.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, get_args
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry as CollectorRegistry
from prometheus_client import (
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from disagfusion.telemetry import catalog
from disagfusion.telemetry.catalog import Kind, Metric
from disagfusion.version import __version__

Outcome = Literal["succeeded", "failed", "cancelled", "expired"]
AcceleratorState = Literal["busy", "starved", "blocked", "loading"]
Direction = Literal["sent", "received"]
TransferOutcome = Literal["done", "refused", "lost"]
SlotState = Literal["free", "granted", "filling", "filled", "computing"]
ReplicaState = Literal["ready", "starting", "waiting", "draining"]
JobStatus = Literal["waiting", "transferring", "running"]

_STAGES = ("encoder", "dit", "decoder")


def new_registry(component: str) -> CollectorRegistry:
    """Return a registry with what every process exports about itself.

    Args:
        component: What runs: "gateway", "encoder", "dit", "decoder".
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    _gauge(catalog.BUILD_INFO, registry).labels(__version__, component).set(1)
    return registry


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    assert metric.kind is Kind.COUNTER
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def _gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    assert metric.kind is Kind.GAUGE
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    assert metric.kind is Kind.HISTOGRAM
    return Histogram(
        metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
    )


class Asked(Collector):
    """A gauge that is asked for at each scrape: what has gone is not left at its last value.

    Args:
        metric: What is exported, by pipeline, stage and pool.
        registry: Where it is registered.
    """

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        assert metric.kind is Kind.GAUGE
        self._metric = metric
        self._ask: Callable[[], Mapping[tuple[str, str, str], float]] = dict
        registry.register(self)

    def follow(self, ask: Callable[[], Mapping[tuple[str, str, str], float]]) -> None:
        """Export from now on what this returns; it is called on any thread."""
        self._ask = ask

    def show(self, values: Mapping[tuple[str, str, str], float]) -> None:
        """Export exactly these from now on."""
        self._ask = lambda: values

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the name, so that registering does not ask."""
        return [GaugeMetricFamily(self._metric.name, self._metric.help, labels=self._metric.labels)]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return what there is now."""
        (family,) = self.describe()
        for labels, value in self._ask().items():
            family.add_metric(labels, value)
        return [family]


class GatewayMetrics:
    """What a gateway exports.

    Args:
        registry: Where the metrics are registered.
        pipeline: Value of the label of that name.

    Attributes:
        queue: Accepted jobs that no stage has been given yet.
        store_commit_seconds: Durations of the job store's transactions.
        dispatch_seconds: Durations of the dispatcher's decisions.
        result_bytes: Size of the result store.
        backlog: Seconds of work that is left, by pipeline, stage and pool.
    """

    def __init__(self, registry: CollectorRegistry, *, pipeline: str) -> None:
        self._pipeline = pipeline
        self._accepted = _counter(catalog.JOBS_ACCEPTED, registry).labels(pipeline)
        self._jobs = _counter(catalog.JOBS, registry)
        self._refused = _counter(catalog.JOBS_REFUSED, registry)
        self._seconds = _histogram(catalog.JOB_SECONDS, registry)
        self._retries = _counter(catalog.JOB_RETRIES, registry)
        self._stage_jobs = _gauge(catalog.STAGE_JOBS, registry)
        self._workers = _gauge(catalog.WORKERS, registry)
        self._stale = _counter(catalog.STALE_RESULTS, registry)
        self.queue = _gauge(catalog.GATEWAY_QUEUE, registry).labels(pipeline)
        self.store_commit_seconds = _histogram(catalog.STORE_COMMIT_SECONDS, registry).labels(
            pipeline
        )
        self.dispatch_seconds = _histogram(catalog.DISPATCH_SECONDS, registry).labels(pipeline)
        self.result_bytes = _gauge(catalog.RESULT_BYTES, registry).labels(pipeline)
        self.backlog = Asked(catalog.BACKLOG_WORK, registry)
        # What has not happened yet is zero: a series that does not exist would say nothing.
        for outcome in get_args(Outcome):
            self._jobs.labels(pipeline, outcome)
            self._seconds.labels(pipeline, outcome)
        for stage in _STAGES:
            for status in get_args(JobStatus):
                self.stage_jobs(stage, status)

    def job_accepted(self) -> None:
        """Count a job that was accepted."""
        self._accepted.inc()

    def job_ended(self, outcome: Outcome, seconds: float) -> None:
        """Count a job that ended `seconds` after it was accepted."""
        self._jobs.labels(self._pipeline, outcome).inc()
        self._seconds.labels(self._pipeline, outcome).observe(seconds)

    def job_refused(self, reason: str) -> None:
        """Count a submission that was refused with an error of this reason."""
        self._refused.labels(self._pipeline, reason).inc()

    def job_retried(self, stage: str, reason: str) -> None:
        """Count a stage that has to be done again or elsewhere."""
        self._retries.labels(self._pipeline, stage, reason).inc()

    def stage_jobs(self, stage: str, status: JobStatus) -> Gauge:
        """Return the gauge of unfinished jobs in this stage and status."""
        return self._stage_jobs.labels(self._pipeline, stage, status)

    def workers(self, stage: str, pool: str, state: str) -> Gauge:
        """Return the gauge of connected workers of this stage and pool in this state."""
        return self._workers.labels(self._pipeline, stage, pool, state)

    def stale_result(self, stage: str) -> None:
        """Count a message that was refused because its attempt is superseded."""
        self._stale.labels(self._pipeline, stage).inc()


class StageMetrics:
    """What the front of a stage service exports.

    Args:
        registry: Where the metrics are registered.
        pipeline: Value of the label of that name.
        stage: Value of the label of that name: "encoder", "dit" or "decoder".
        pool: Value of the label of that name.

    Attributes:
        queue: Assignments that are not computed yet.
        compute_seconds: Durations of computed assignments.
        held_bytes: Bytes of finished outputs in the held store.
        held_outputs: Finished outputs in the held store.
    """

    def __init__(
        self, registry: CollectorRegistry, *, pipeline: str, stage: str, pool: str
    ) -> None:
        self._accelerator = _counter(catalog.ACCELERATOR_SECONDS, registry)
        self._failures = _counter(catalog.STAGE_FAILURES, registry)
        self._transfers = _counter(catalog.TRANSFERS, registry)
        self._transfer_bytes = _counter(catalog.TRANSFER_BYTES, registry)
        self._transfer_seconds = _counter(catalog.TRANSFER_SECONDS, registry)
        self._checksums = _counter(catalog.CHECKSUM_FAILURES, registry)
        self._slots = _gauge(catalog.SLOTS, registry)
        self._restarts = _counter(catalog.ENGINE_RESTARTS, registry)
        self._cache = _counter(catalog.PROMPT_CACHE, registry)
        self._queue = _gauge(catalog.STAGE_QUEUE, registry)
        self._compute_seconds = _histogram(catalog.COMPUTE_SECONDS, registry)
        self._overlap = {
            "exposed": _counter(catalog.EXPOSED_TRANSFER_SECONDS, registry),
            "hidden": _counter(catalog.HIDDEN_TRANSFER_SECONDS, registry),
        }
        self._held_bytes = _gauge(catalog.HELD_BYTES, registry)
        self._held_outputs = _gauge(catalog.HELD_OUTPUTS, registry)
        self._startup = _gauge(catalog.STARTUP_TIMESTAMP, registry)
        self.bind(pipeline, stage, pool)

    def of_stage(self, stage: str) -> StageMetrics:
        """Return the same metrics labelled with another stage, for a worker that takes it."""
        other = copy.copy(self)
        pipeline, _, pool = self._labels
        other.bind(pipeline, stage, pool)
        return other

    def bind(self, pipeline: str, stage: str, pool: str) -> None:
        """Use these labels from now on."""
        self._labels = labels = (pipeline, stage, pool)
        self._checksums.labels(*labels)  # zero until it happens
        self.queue = self._queue.labels(*labels)
        self.compute_seconds = self._compute_seconds.labels(*labels)
        self.held_bytes = self._held_bytes.labels(*labels)
        self.held_outputs = self._held_outputs.labels(*labels)

    def accelerator_seconds(self, state: AcceleratorState) -> Counter:
        """Return the counter of accelerator seconds in this state."""
        return self._accelerator.labels(*self._labels, state)

    def overlap(self, part: Literal["exposed", "hidden"], direction: Direction) -> Counter:
        """Return the counter of seconds with a transfer that compute did not hide, or did."""
        return self._overlap[part].labels(*self._labels, direction)

    def stage_failed(self, kind: str) -> None:
        """Count an assignment that did not succeed; `kind` is the failure kind in lower case."""
        self._failures.labels(*self._labels, kind).inc()

    def transferred(
        self, transport: str, direction: Direction, *, nbytes: int, seconds: float
    ) -> None:
        """Count a hand-over that took place."""
        self._transfers.labels(*self._labels, transport, direction, "done").inc()
        self._transfer_bytes.labels(*self._labels, transport, direction).inc(nbytes)
        self._transfer_seconds.labels(*self._labels, transport, direction).inc(seconds)

    def transfer_failed(
        self, transport: str, direction: Direction, outcome: TransferOutcome
    ) -> None:
        """Count a hand-over that did not take place."""
        self._transfers.labels(*self._labels, transport, direction, outcome).inc()

    def checksum_failed(self) -> None:
        """Count tensors that arrived with another content than was sent."""
        self._checksums.labels(*self._labels).inc()

    def slots(self, state: SlotState) -> Gauge:
        """Return the gauge of input slots in this state."""
        return self._slots.labels(*self._labels, state)

    def engine_restarted(self, reason: str) -> None:
        """Count an engine that is started again."""
        self._restarts.labels(*self._labels, reason).inc()

    def startup(self, step: str) -> Gauge:
        """Return the gauge of the Unix time of a step of the start."""
        return self._startup.labels(*self._labels, step)

    def prompt_cache(self, result: Literal["hit", "miss"]) -> None:
        """Count a look-up in the cache of prompt embeddings."""
        self._cache.labels(*self._labels, result).inc()


class BalancerMetrics:
    """What the process that runs the balancer exports.

    Args:
        registry: Where the metrics are registered.
        pipeline: Value of the label of that name.
        reasons: Every reason that a decision may have, in lower case.

    Attributes:
        model_version: Of the performance model's coefficients, by pipeline, stage and pool.
        model_samples: At hand for the next fit, as above.
        model_error: Of the fit in use, as above.
        model_correction: Factor on its predictions, as above.
    """

    def __init__(
        self, registry: CollectorRegistry, *, pipeline: str, reasons: Iterable[str]
    ) -> None:
        self._pipeline = pipeline
        self._decisions = _counter(catalog.BALANCER_DECISIONS, registry)
        self._desired = _gauge(catalog.DESIRED_REPLICAS, registry)
        self._accelerators = _gauge(catalog.POOL_ACCELERATORS, registry)
        self._replicas = _gauge(catalog.REPLICAS, registry)
        self._parameters = _gauge(catalog.BALANCER_PARAMETER, registry)
        self._calibrations = _counter(catalog.BALANCER_CALIBRATIONS, registry)
        self._gain = _gauge(catalog.BALANCER_CALIBRATION_GAIN, registry).labels(pipeline)
        self._held = _gauge(catalog.BALANCER_HELD, registry).labels(pipeline)
        self.model_version = Asked(catalog.MODEL_VERSION, registry)
        self.model_samples = Asked(catalog.MODEL_SAMPLES, registry)
        self.model_error = Asked(catalog.MODEL_ERROR, registry)
        self.model_correction = Asked(catalog.MODEL_CORRECTION, registry)
        for reason in reasons:
            self._decisions.labels(pipeline, reason)
        for result in ("adopted", "kept", "failed"):
            self._calibrations.labels(pipeline, result)

    def decided(self, reason: str) -> None:
        """Count a decision; `reason` is the name of its `Reason` in lower case."""
        self._decisions.labels(self._pipeline, reason).inc()

    def desired(self, stage: str, pool: str) -> Gauge:
        """Return the gauge of the replicas that are wanted of this stage on this pool."""
        return self._desired.labels(self._pipeline, stage, pool)

    def replicas(self, stage: str, pool: str, state: ReplicaState) -> Gauge:
        """Return the gauge of the replicas of this stage on this pool in this state."""
        return self._replicas.labels(self._pipeline, stage, pool, state)

    def accelerators(self, pool: str, state: Literal["usable", "held"]) -> Gauge:
        """Return the gauge of the accelerators of this pool."""
        return self._accelerators.labels(self._pipeline, pool, state)

    def parameter(self, name: str, value: float) -> None:
        """Show a parameter that calibration may change."""
        self._parameters.labels(self._pipeline, name).set(value)

    def calibrated(self, result: Literal["adopted", "kept", "failed"]) -> None:
        """Count a calibration."""
        self._calibrations.labels(self._pipeline, result).inc()

    def calibration_gain(self, share: float) -> None:
        """Show by which share the parameters adopted last were better."""
        self._gain.set(share)

    def held(self, held: bool) -> None:
        """Show whether a person holds the ratio."""
        self._held.set(held)


class GrpcMetrics:
    """What every process with a gRPC server exports about its messages."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bytes = _counter(catalog.GRPC_MESSAGE_BYTES, registry)

    def message_bytes(self, method: str, direction: Direction) -> Counter:
        """Return the counter of serialized bytes of a method, such as "/package.Service/Method"."""
        return self._bytes.labels(method, direction)


class MetricsServer:
    """A running HTTP server that answers scrapes; made by `serve`.

    Attributes:
        address: Where it listens, as "host:port".
    """

    def __init__(self, server: WSGIServer, thread: threading.Thread, host: str) -> None:
        self._server = server
        self._thread = thread
        self.address = f"{host}:{server.server_port}"

    def close(self) -> None:
        """Stop listening and wait for the server's thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(listen: str, registry: CollectorRegistry) -> MetricsServer:
    """Serve a registry over HTTP in a daemon thread.

    Args:
        listen: "host:port"; port 0 takes a free one, an IPv6 host stands in brackets.
        registry: What is served at /metrics.

    Raises:
        ValueError: `listen` is not an address.
        OSError: The address cannot be used.
    """
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdecimal():
        raise ValueError(f"expected host:port for the metrics address, not {listen!r}")
    server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    return MetricsServer(server, thread, host)
