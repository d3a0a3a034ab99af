"""How the performance model learns and when it is trusted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from disagfusion.scheduling.document import Count, Document, NonNegative, Positive, PositiveCount

_DAY = 86_400.0


class PerformanceSettings(Document):
    """Bounds of the performance model; times in seconds.

    Attributes:
        capacity: Samples kept of each stage on each pool.
        sample_age: After which a sample is dropped.
        drifted_sample_share: Of that age, what samples from before a confirmed drift still live.
        warm_up_samples: First samples of each worker's life that are left out although the worker
            did not call them warm-up.
        minimum_samples: Without as many a fit is not even tried.
        hold_out_share: Of the samples, what a fit does not see and is judged by.
        maximum_error: Median relative error on these above which a fit is refused.
        tolerance: By how much of its error a fit may seem worse on these samples than what it
            replaces: an earlier fit may have been fitted to some of them, and few samples judge
            no finer.
        prior_weight: Of the whole prior, in samples with noise of 5 %, before the first sample. It
            grows with the square of the noise, as the number of samples does that say the same.
        prior_fade: Samples after which the prior weighs half.
        model_age: After which a fit that no later samples confirmed is given up.
        correction_limit: Greatest factor, up and down, by which recent samples correct a
            prediction.
        dead_band: Relative corrections below it are not made.
        drift_noise: Least relative spread that the detector of drifts takes for noise.
        drift_threshold: Sum of excess deviations, in spreads, that confirms a drift.
    """

    capacity: PositiveCount = 512
    sample_age: Positive = 7 * _DAY
    drifted_sample_share: Annotated[float, Field(gt=0, le=1)] = 0.125
    warm_up_samples: Count = 1
    minimum_samples: Annotated[int, Field(ge=5, strict=True)] = 20
    hold_out_share: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    maximum_error: Positive = 0.35
    tolerance: NonNegative = 0.1
    prior_weight: NonNegative = 5.0
    prior_fade: Positive = 50.0
    model_age: Positive = 14 * _DAY
    correction_limit: Annotated[float, Field(gt=1)] = 4.0
    dead_band: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    drift_noise: Positive = 0.05
    drift_threshold: Positive = 10.0
