"""The metrics of the operator."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from disagfusion.telemetry import catalog


class OperatorMetrics:
    """What the operator exports about itself.

    Args:
        registry: Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        looks = catalog.OPERATOR_RECONCILE_SECONDS
        self._looks = Histogram(looks.name, looks.help, buckets=looks.buckets, registry=registry)
        errors = catalog.OPERATOR_RECONCILE_ERRORS
        self._errors = Counter(errors.name, errors.help, registry=registry)
        calls = catalog.OPERATOR_API_CALLS
        self._calls = Counter(calls.name, calls.help, calls.labels, registry=registry)
        leads = catalog.OPERATOR_LEADS
        self._leads = Gauge(leads.name, leads.help, registry=registry)
        pipelines = catalog.OPERATOR_PIPELINES
        self._pipelines = Gauge(pipelines.name, pipelines.help, registry=registry)

    def look(self, seconds: float, failed: bool) -> None:
        """Count a look at a pipeline."""
        self._looks.observe(seconds)
        if failed:
            self._errors.inc()

    def call(self, verb: str, resource: str, status: int) -> None:
        """Count a call of the API server; status 0: it did not answer."""
        self._calls.labels(verb, resource, str(status)).inc()

    def leads(self, leads: bool) -> None:
        """Say whether this process is the one that acts."""
        self._leads.set(int(leads))

    def follow(self, pipelines: Callable[[], int]) -> None:
        """Export from now on how many pipelines there are."""
        self._pipelines.set_function(lambda: float(pipelines()))
