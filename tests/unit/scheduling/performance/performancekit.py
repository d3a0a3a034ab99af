"""A deployment whose true costs are known, for the tests of the performance model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from random import Random

from disagfusion.scheduling.performance import (
    FitResult,
    PerformanceModel,
    PerformanceSettings,
    PerformanceTracker,
    Reason,
    Sample,
    SampleSnapshot,
    fit,
)
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import FEATURES, CostModel, Shape

SETTINGS = PerformanceSettings()
PAIR = ("dit", "a10")
TRUE = CostModel(
    constant=0.3, per_step=0.05, per_step_megapixel=0.8, per_step_megapixel_squared=0.2
)
MEDIUM = Shape(height=1024, width=1024, num_inference_steps=20)
VIDEO = Shape(height=720, width=1280, num_frames=81, num_inference_steps=50)

STEPS = (1, 4, 8, 20, 50)
SIZES = (256, 512, 768, 1024, 2048)


def times(model: CostModel, factor: float) -> dict[str, float]:
    """Return a model's coefficients, each so many times what it was."""
    return {name: getattr(model, name) * factor for name in FEATURES}


def profile(**pools: dict[str, object]) -> Profile:
    """Return a profile of one stage, dit, on the given pools; on a10 with its true cost if none."""
    pools = pools or {"a10": {"model": times(TRUE, 1.0)}}
    return Profile.model_validate(
        {
            "pools": {name: {"accelerators": 8} for name in (*pools, "spare")},
            "stages": {"dit": {"pools": pools}},
        }
    )


FLAT = profile(a10={"seconds": 5.0})


def off_by(factor: float) -> Profile:
    """Return a profile that says so many times the truth."""
    return profile(a10={"model": times(TRUE, factor)})


def shapes(
    count: int, seed: int = 0, *, sizes: Sequence[int] = SIZES, steps: Sequence[int] = STEPS
) -> list[Shape]:
    """Draw shapes of pictures."""
    random = Random(seed)
    return [
        Shape(
            height=random.choice(sizes),
            width=random.choice(sizes),
            num_inference_steps=random.choice(steps),
        )
        for _ in range(count)
    ]


def samples(
    of: Iterable[Shape],
    *,
    model: CostModel = TRUE,
    factor: float = 1.0,
    noise: float = 0.05,
    seed: int = 0,
    start: float = 0.0,
    stage: str = "dit",
    pool: str = "a10",
    peak: CostModel | None = None,
) -> list[Sample]:
    """Run jobs, one each second, on accelerators so many times slower than the model says."""
    random = Random(seed)
    return [
        Sample(
            stage=stage,
            pool=pool,
            shape=shape,
            # The mean of such a factor is 1, as the mean of what the model predicts has to be.
            seconds=factor * model.evaluate(shape) * random.lognormvariate(-(noise**2) / 2, noise),
            peak_bytes=None if peak is None else round(peak.evaluate(shape) * (1 << 30)),
            at=start + second,
        )
        for second, shape in enumerate(of)
    ]


def fitted(
    given: Iterable[Sample],
    prior: Profile,
    *,
    current: PerformanceModel | None = None,
    settings: PerformanceSettings = SETTINGS,
    now: float = 10_000.0,
) -> FitResult:
    """Fit what was sampled."""
    return fit(SampleSnapshot(tuple(given)), current, prior, settings, now)


def reason(result: FitResult) -> Reason:
    """Return why the fit of the only stage and pool ended as it did."""
    (only,) = result.results
    return only.reason


def off(model: PerformanceModel, shape: Shape, truth: float, *, pool: str = "a10") -> float:
    """Return by how much of the truth a prediction is off."""
    return abs(model.predict("dit", pool, shape).seconds / truth - 1.0)


def error(model: PerformanceModel, of: Iterable[Shape], *, factor: float = 1.0) -> float:
    """Return the greatest relative error over some shapes."""
    return max(off(model, shape, factor * TRUE.evaluate(shape)) for shape in of)


def feed(tracker: PerformanceTracker, given: Iterable[Sample]) -> float:
    """Let a tracker see samples as they come; return the last one's time."""
    at = -math.inf
    for sample in given:
        at = sample.at
        tracker.observe(sample, now=at)
    return at


def refit(
    tracker: PerformanceTracker, now: float, settings: PerformanceSettings = SETTINGS
) -> FitResult:
    """Fit what a tracker has, and let it adopt the result."""
    model = tracker.model
    result = fit(tracker.snapshot(now=now), model, model.profile, settings, now)
    tracker.adopt(result.model, now=now)
    return result
