"""Samples, corrections, fits and restarts together: what happens to other people's models."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from performancekit import (
    MEDIUM,
    PAIR,
    SETTINGS,
    TRUE,
    VIDEO,
    error,
    feed,
    off,
    off_by,
    profile,
    refit,
    samples,
    shapes,
    times,
)

from disagfusion.scheduling.performance import (
    PerformanceModel,
    PerformanceTracker,
    Provenance,
    Reason,
    Sample,
    Verdict,
)
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape

TRUTH = TRUE.evaluate(MEDIUM)
SEEN = sorted(set(shapes(400)), key=lambda shape: shape.features)


def tracker_of(prior: Profile) -> PerformanceTracker:
    return PerformanceTracker(PerformanceModel(prior), SETTINGS, now=0.0)


def learned(prior: Profile | None = None, *, jobs: int = 200) -> tuple[PerformanceTracker, float]:
    """Return a tracker that has adopted a good fit, and the time."""
    tracker = tracker_of(prior or off_by(0.5))
    now = feed(tracker, samples(shapes(jobs)))
    assert [row.reason for row in refit(tracker, now).results] == [Reason.ADOPTED]
    return tracker, now


def row(tracker: PerformanceTracker, now: float, pool: str = "a10") -> object:
    (only,) = [row for row in tracker.summary(now=now) if row.pool == pool]
    return only


# Cold starts


def cold_starts(count: int) -> list[tuple[Sample, str]]:
    """Restart a worker every ten jobs; its first job takes ten times as long."""
    return [
        (replace(sample, seconds=sample.seconds * (1 if job % 10 else 10)), f"life-{job // 10}")
        for job, sample in enumerate(samples(shapes(count)))
    ]


def test_cold_start_samples_do_not_poison_the_regression() -> None:
    tracker = tracker_of(off_by(0.5))
    for sample, life in cold_starts(300):
        tracker.observe(sample, now=sample.at, incarnation=life)
    assert tracker.store.counts == {Verdict.WARM_UP: 30, Verdict.KEPT: 270}
    refit(tracker, 300.0)
    assert error(tracker.model, SEEN) < 0.05
    predicted = tracker.model.predict(*PAIR, MEDIUM)
    assert predicted.p95_seconds < 1.15 * predicted.seconds


def test_cold_starts_that_nobody_tells_from_others_do_not_bend_the_mean() -> None:
    tracker = tracker_of(off_by(0.5))
    feed(tracker, [sample for sample, _ in cold_starts(300)])
    refit(tracker, 300.0)
    assert error(tracker.model, SEEN) < 0.06
    assert tracker.model.predict(*PAIR, MEDIUM).p95_seconds > 5 * TRUTH


def test_what_a_worker_calls_warm_up_corrects_nothing() -> None:
    tracker = tracker_of(off_by(1.0))
    feed(tracker, [replace(s, warm_up=True) for s in samples(shapes(50), factor=10.0)])
    assert tracker.model.corrections == {}


# A profile that is wrong


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_profile_is_corrected_after_five_jobs_and_fitted_after_twenty(
    factor: float,
) -> None:
    for seed in range(5):
        tracker = tracker_of(off_by(factor))
        jobs = samples(shapes(20, seed), seed=seed)
        feed(tracker, jobs[:5])
        assert error(tracker.model, SEEN) < 0.15
        assert tracker.model.predict(*PAIR, MEDIUM).provenance is Provenance.PROFILE
        # The planner plans with it, too.
        planned = tracker.model.to_profile().stages["dit"].pools["a10"].seconds_of(MEDIUM)
        assert planned == pytest.approx(TRUTH, rel=0.15)
        now = feed(tracker, jobs[5:])
        assert [row.reason for row in refit(tracker, now).results] == [Reason.ADOPTED]
        assert off(tracker.model, MEDIUM, TRUTH) < 0.05
        assert tracker.model.corrections == {}


def test_a_wrong_profile_is_no_drift_that_would_cost_samples() -> None:
    tracker = tracker_of(off_by(0.5))
    feed(tracker, samples(shapes(100)))
    assert tracker.snapshot(now=100.0).regimes == {}
    assert len(tracker.snapshot(now=100.0).samples) == 100


def test_a_right_profile_stays_as_it_is() -> None:
    tracker = tracker_of(off_by(1.0))
    for sample in samples(shapes(500)):
        tracker.observe(sample, now=sample.at)
        assert abs(math.log(tracker.model.corrections.get(PAIR, 1.0))) < 0.12


# Throttling


def test_a_throttled_pool_is_reflected_after_ten_jobs_and_fitted_anew() -> None:
    tracker, now = learned()
    throttled = samples(shapes(40, 1), factor=1 / 0.6, start=now + 1.0, seed=1)
    now = feed(tracker, throttled[:10])
    assert tracker.model.corrections[PAIR] == pytest.approx(1 / 0.6, rel=0.1)
    assert error(tracker.model, SEEN, factor=1 / 0.6) < 0.15
    assert row(tracker, now).drifted  # type: ignore[attr-defined]
    # What was sampled before no longer holds: ten jobs are too few for a fit of their own.
    assert [r.reason for r in refit(tracker, now).results] == [Reason.TOO_FEW_SAMPLES]
    assert error(tracker.model, SEEN, factor=1 / 0.6) < 0.15
    now = feed(tracker, throttled[10:])
    (result,) = refit(tracker, now).results
    assert result.reason is Reason.ADOPTED
    assert result.samples == pytest.approx(40, abs=2)
    assert error(tracker.model, SEEN, factor=1 / 0.6) < 0.1
    assert PAIR not in tracker.model.corrections
    assert not row(tracker, now).drifted  # type: ignore[attr-defined]


def test_after_a_drift_the_earlier_fit_still_gives_the_proportions() -> None:
    """The profile is wrong and the samples since the drift are all alike."""
    flat = profile(a10={"model": {"constant": 20.0, "per_step": 0.1}})
    tracker, now = learned(flat, jobs=400)
    assert off(tracker.model, MEDIUM, TRUTH) < 0.05
    small = Shape(height=512, width=512, num_inference_steps=8)
    now = feed(tracker, samples([small] * 40, factor=1 / 0.6, start=now + 1.0))
    assert [r.reason for r in refit(tracker, now).results] == [Reason.ADOPTED]
    assert off(tracker.model, MEDIUM, TRUTH / 0.6) < 0.1


def test_throttling_that_ends_is_forgotten() -> None:
    tracker, now = learned()
    now = feed(tracker, samples(shapes(15), factor=1 / 0.6, start=now + 1.0))
    now = feed(tracker, samples(shapes(15), start=now + 1.0))
    assert error(tracker.model, SEEN) < 0.1
    assert not row(tracker, now).drifted  # type: ignore[attr-defined]


def test_one_straggling_job_moves_next_to_nothing() -> None:
    tracker, now = learned()
    before = tracker.model.predict(*PAIR, MEDIUM).seconds
    straggler = replace(samples([MEDIUM], start=now + 1.0)[0], seconds=50 * TRUTH)
    feed(tracker, [straggler])
    assert tracker.model.predict(*PAIR, MEDIUM).seconds == pytest.approx(before, rel=0.1)
    assert not row(tracker, now).drifted  # type: ignore[attr-defined]


def test_one_slow_worker_of_ten_is_not_the_pool() -> None:
    tracker, now = learned()
    jobs = [
        replace(sample, seconds=sample.seconds / (0.6 if job % 10 == 0 else 1.0))
        for job, sample in enumerate(samples(shapes(300), start=now + 1.0))
    ]
    now = feed(tracker, jobs)
    assert error(tracker.model, SEEN) < 0.12
    assert tracker.snapshot(now=now).regimes == {}


def test_jobs_of_a_new_size_are_no_drift() -> None:
    """Pictures, then videos: the fit is off for what it never saw, the pool is what it was."""
    tracker = tracker_of(profile(a10={"seconds": 5.0}))
    small = Shape(height=512, width=512, num_inference_steps=8)
    now = feed(tracker, samples([small] * 200))
    assert [r.reason for r in refit(tracker, now).results] == [Reason.ADOPTED]
    assert off(tracker.model, VIDEO, TRUE.evaluate(VIDEO)) > 0.9
    now = feed(tracker, samples([VIDEO] * 30, start=now + 1.0))
    assert tracker.snapshot(now=now).regimes == {}
    assert len(tracker.snapshot(now=now).by_pair()[PAIR]) == 230
    refit(tracker, now)
    assert off(tracker.model, VIDEO, TRUE.evaluate(VIDEO)) < 0.05
    assert off(tracker.model, small, TRUE.evaluate(small)) < 0.05


def test_a_store_full_of_small_jobs_still_predicts_large_ones() -> None:
    tracker = tracker_of(profile(a10={"seconds": 5.0}))
    now = feed(tracker, samples(shapes(30, sizes=(2048,), steps=(50,))))
    now = feed(tracker, samples(shapes(3_000, sizes=(256, 512), steps=(4,)), start=now + 1.0))
    refit(tracker, now)
    large = Shape(height=2048, width=2048, num_inference_steps=50)
    assert not tracker.model.predict(*PAIR, large).extrapolated
    assert off(tracker.model, large, TRUE.evaluate(large)) < 0.03
    small = Shape(height=512, width=512, num_inference_steps=4)
    assert off(tracker.model, small, TRUE.evaluate(small)) < 0.03


# Garbage


def test_garbage_changes_nothing() -> None:
    tracker, now = learned()
    before = tracker.model
    good = samples([MEDIUM], start=now)[0]
    for seconds in (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308):
        assert tracker.observe(replace(good, seconds=seconds), now=now) is Verdict.BAD_SECONDS
    assert tracker.observe(replace(good, at=math.nan), now=now) is Verdict.BAD_TIME
    assert tracker.observe(replace(good, pool=""), now=now) is Verdict.BAD_NAME
    assert tracker.model is before
    assert tracker.store.counts[Verdict.BAD_SECONDS] == 6
    assert row(tracker, now).stored == 200  # type: ignore[attr-defined]


def test_a_stage_that_the_model_does_not_know_is_only_sampled() -> None:
    tracker = tracker_of(off_by(1.0))
    now = feed(tracker, samples(shapes(100), stage="upscaler"))
    assert tracker.store.count("upscaler", "a10") == 100
    assert tracker.model.corrections == {}
    refit(tracker, now)
    assert tracker.model.predict("upscaler", "a10", MEDIUM).provenance is Provenance.FITTED
    # And where it is not known any more, nothing breaks.
    now = feed(tracker, samples(shapes(20), stage="upscaler", factor=2.0, start=now))
    tracker.adopt(PerformanceModel(off_by(1.0)), now=now)
    assert tracker.model.corrections == {}


def test_an_unseen_pool_is_corrected_by_its_own_jobs() -> None:
    tracker, now = learned()
    assert tracker.model.predict("dit", "spare", MEDIUM).provenance is Provenance.BORROWED
    now = feed(tracker, samples(shapes(6), pool="spare", factor=0.5, start=now + 1.0))
    assert off(tracker.model, MEDIUM, 0.5 * TRUTH, pool="spare") < 0.1
    assert off(tracker.model, MEDIUM, TRUTH) < 0.05
    assert row(tracker, now, "spare").stored == 6  # type: ignore[attr-defined]


# Restarts and age


def test_a_restart_keeps_model_and_correction() -> None:
    tracker, now = learned()
    now = feed(tracker, samples(shapes(15), factor=1 / 0.6, start=now + 1.0))
    restored = PerformanceModel.from_json(tracker.model.to_json())
    again = PerformanceTracker(restored, SETTINGS, now=now)
    for shape in [*SEEN, VIDEO]:
        assert again.model.predict(*PAIR, shape) == tracker.model.predict(*PAIR, shape)
    again.store.restore(tracker.snapshot(now=now), now)
    assert again.snapshot(now=now) == tracker.snapshot(now=now)
    # The correction stays until jobs say otherwise.
    now = feed(again, samples(shapes(3), factor=1 / 0.6, start=now + 1.0))
    assert again.model.corrections[PAIR] == pytest.approx(1 / 0.6, rel=0.1)
    again.refresh(now=now)
    assert again.model.corrections[PAIR] == pytest.approx(1 / 0.6, rel=0.1)
    feed(again, samples(shapes(10), start=now + 1.0))
    assert again.model.corrections.get(PAIR, 1.0) == pytest.approx(1.0, abs=0.1)


def test_a_stale_fit_falls_back_to_the_profile_and_recent_jobs_correct_that() -> None:
    tracker, now = learned()
    late = now + SETTINGS.model_age + 1.0
    feed(tracker, samples(shapes(20), start=late - 20.0))
    assert tracker.model.predict(*PAIR, MEDIUM).provenance is Provenance.FITTED
    tracker.refresh(now=late)
    assert tracker.model.predict(*PAIR, MEDIUM).provenance is Provenance.PROFILE
    # The profile says half of the truth.
    assert tracker.model.corrections[PAIR] == pytest.approx(2.0, rel=0.1)
    assert off(tracker.model, MEDIUM, TRUTH) < 0.1
    # A tracker that starts with it does not trust it either.
    assert (
        PerformanceTracker(PerformanceModel.from_json(tracker.model.to_json()), SETTINGS, now=late)
        .model.predict(*PAIR, MEDIUM)
        .provenance
        is Provenance.PROFILE
    )


def test_a_correction_without_recent_jobs_is_given_up() -> None:
    tracker = tracker_of(off_by(0.5))
    now = feed(tracker, samples(shapes(20)))
    tracker.refresh(now=now + SETTINGS.sample_age - 8.0)
    assert PAIR in tracker.model.corrections
    tracker.refresh(now=now + SETTINGS.sample_age + 1.0)
    assert tracker.model.corrections == {}


def test_a_correction_that_hardly_moves_is_not_published_anew() -> None:
    tracker = tracker_of(off_by(0.5))
    feed(tracker, samples(shapes(20), noise=0.01))
    models = set()
    for sample in samples(shapes(200), noise=0.01, start=20.0):
        tracker.observe(sample, now=sample.at)
        models.add(id(tracker.model))
    assert len(models) < 5


def test_a_new_model_keeps_corrections_of_others() -> None:
    prior = profile(a10={"model": times(TRUE, 1.0)}, l4={"model": times(TRUE, 0.5)})
    tracker = tracker_of(prior)
    now = feed(tracker, samples(shapes(10), pool="l4"))
    assert tracker.model.corrections[("dit", "l4")] == pytest.approx(2.0, rel=0.1)
    published = PerformanceModel(prior, version=7)
    tracker.adopt(published, now=now)
    assert tracker.model.version == 7
    assert tracker.model.corrections[("dit", "l4")] == pytest.approx(2.0, rel=0.1)


def test_a_day_of_changing_load_stays_near_the_truth() -> None:
    """Drifts up and down, restarts, stragglers, a fit now and then: never far off for long."""
    random = Random(5)
    tracker, now = learned()
    worst = []
    for hour in range(12):
        factor = random.choice((0.8, 1.0, 1.0, 1.0, 1.4, 1 / 0.6))
        jobs = samples(shapes(60, hour), factor=factor, seed=hour, start=now + 1.0)
        jobs = [
            replace(job, seconds=job.seconds * 8) if random.random() < 0.03 else job for job in jobs
        ]
        feed(tracker, jobs[:10])
        worst.append(error(tracker.model, SEEN, factor=factor))
        now = feed(tracker, jobs[10:])
        if hour % 4 == 3:
            saved = tracker.snapshot(now=now)
            model = PerformanceModel.from_json(tracker.model.to_json())
            tracker = PerformanceTracker(model, SETTINGS, now=now)
            tracker.store.restore(saved, now)
        refit(tracker, now)
    assert max(worst) < 0.25
    assert sorted(worst)[6] < 0.12
