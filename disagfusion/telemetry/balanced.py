"""What a process that balances many pipelines exports about each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from disagfusion.telemetry import catalog
from disagfusion.telemetry.catalog import Kind, Metric

NAMESPACE = "namespace"
"""Label that tells pipelines of the same name apart."""

Figures = Mapping[tuple[str, ...], float]
"""Values of the metric's labels after `pipeline`, with the number."""

_SHOWN = (
    *(catalog.DESIRED_REPLICAS, catalog.REPLICAS, catalog.POOL_ACCELERATORS),
    *(catalog.MODEL_VERSION, catalog.MODEL_SAMPLES, catalog.MODEL_ERROR, catalog.MODEL_CORRECTION),
    catalog.BALANCER_HELD,
)


@dataclass(slots=True)
class _Pipeline:
    figures: dict[str, Figures] = field(default_factory=dict)
    decisions: Counter[str] = field(default_factory=Counter)


class BalancedPipelines(Collector):
    """The balancer's metrics of all pipelines; one that is gone leaves nothing behind.

    Args:
        registry: Where they are registered.
        reasons: Every reason that a decision may have, in lower case.
    """

    def __init__(self, registry: CollectorRegistry, reasons: Iterable[str]) -> None:
        self._reasons = tuple(reasons)
        self._pipelines: dict[tuple[str, str], _Pipeline] = {}
        registry.register(self)

    def show(self, namespace: str, pipeline: str, figures: Mapping[Metric, Figures]) -> None:
        """Export exactly these of a pipeline's gauges from now on.

        Args:
            namespace: Of the pipeline.
            pipeline: Under which it is served.
            figures: Of the metrics that are known of it.
        """
        one = self._pipelines.setdefault((namespace, pipeline), _Pipeline())
        one.figures = {metric.name: dict(values) for metric, values in figures.items()}

    def decided(self, namespace: str, pipeline: str, reason: str) -> None:
        """Count a decision; `reason` is the name of its `Reason` in lower case."""
        self._pipelines.setdefault((namespace, pipeline), _Pipeline()).decisions[reason] += 1

    def forget(self, namespace: str, pipeline: str) -> None:
        """Export nothing more of a pipeline."""
        self._pipelines.pop((namespace, pipeline), None)

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Return the names, so that registering does not ask."""
        return [_family(metric) for metric in (*_SHOWN, catalog.BALANCER_DECISIONS)]

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Return what there is now."""
        pipelines = dict(self._pipelines)
        for metric in _SHOWN:
            family = _family(metric)
            for name, one in pipelines.items():
                for labels, value in one.figures.get(metric.name, {}).items():
                    family.add_metric((*name, *labels), value)
            yield family
        counted = _family(catalog.BALANCER_DECISIONS)
        for name, one in pipelines.items():
            for reason in self._reasons:
                counted.add_metric((*name, reason), one.decisions[reason])
        yield counted


def _family(metric: Metric) -> GaugeMetricFamily | CounterMetricFamily:
    labels = (NAMESPACE, *metric.labels)
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(metric.name, metric.help, labels=labels)
    return GaugeMetricFamily(metric.name, metric.help, labels=labels)
