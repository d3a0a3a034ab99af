"""The metrics of a pipeline's balancing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from disagfusion.scheduling.performance.model import PairSummary
from disagfusion.telemetry import catalog
from disagfusion.telemetry.balanced import Figures
from disagfusion.telemetry.catalog import Metric
from disagfusion_operator.scaling.report import Report


def figures(report: Report, rows: Sequence[PairSummary], *, held: bool) -> dict[Metric, Figures]:
    """Return the gauges of a pipeline.

    Args:
        report: Of the last step.
        rows: Of its performance model.
        held: Whether a person or a rollout keeps the ratio as it is.
    """
    desired: Figures = {(p.stage, p.pool): one.desired for p, one in report.places.items()}
    replicas: Figures = {
        (place.stage, place.pool, state): float(count)
        for place, one in report.places.items()
        for state, count in (
            ("ready", one.ready),
            ("starting", one.starting),
            ("waiting", one.waiting),
            ("draining", one.draining),
        )
    }
    taken: Counter[str] = Counter()
    for place, one in report.places.items():
        taken[place.pool] += (one.ready + one.starting + one.draining) * one.accelerators
    accelerators: Figures = {
        **{(pool, "usable"): float(count) for pool, count in report.usable.items()},
        **{(pool, "held"): float(taken[pool]) for pool in report.usable},
    }
    return {
        catalog.DESIRED_REPLICAS: desired,
        catalog.REPLICAS: replicas,
        catalog.POOL_ACCELERATORS: accelerators,
        catalog.MODEL_VERSION: {(row.stage, row.pool): row.version for row in rows},
        catalog.MODEL_SAMPLES: {(row.stage, row.pool): row.stored or 0 for row in rows},
        catalog.MODEL_CORRECTION: {(row.stage, row.pool): row.correction for row in rows},
        catalog.MODEL_ERROR: {
            (row.stage, row.pool): row.error for row in rows if row.error is not None
        },
        catalog.BALANCER_HELD: {(): float(held)},
    }
