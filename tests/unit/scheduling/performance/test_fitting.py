"""What the fit finds in samples, and what it makes of the profile.

scikit-learn takes seconds to import; no module of tests does, so that a run that deselects these
tests does not pay for it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from performancekit import (
    FLAT,
    MEDIUM,
    PAIR,
    SETTINGS,
    SIZES,
    TRUE,
    VIDEO,
    error,
    fitted,
    off,
    off_by,
    profile,
    reason,
    samples,
    shapes,
    times,
)

from disagfusion.scheduling.performance import (
    PerformanceModel,
    PerformanceSettings,
    Reason,
    Sample,
)
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import FEATURES, CostModel, Shape


@pytest.mark.parametrize("prior", [off_by(1.0), off_by(0.5), off_by(2.0), FLAT])
@pytest.mark.parametrize("seed", range(3))
def test_known_coefficients_come_out_of_noisy_samples(prior: Profile, seed: int) -> None:
    given_ = samples(shapes(400, seed), noise=0.05, seed=seed)
    # The profile may be right already, and then nothing beats it.
    allowed = PerformanceSettings(tolerance=0.5)
    result = fitted(given_, prior, settings=allowed)
    assert reason(result) is Reason.ADOPTED
    pair = result.model.pairs[PAIR]
    found = pair.seconds
    assert found.constant == pytest.approx(TRUE.constant, rel=0.06)
    assert found.per_step_megapixel == pytest.approx(TRUE.per_step_megapixel, rel=0.03)
    assert found.per_step_megapixel_squared == pytest.approx(
        TRUE.per_step_megapixel_squared, rel=0.06
    )
    assert error(result.model, set(shapes(400, seed))) < 0.04
    assert pair.error == pytest.approx(0.035, abs=0.015)
    assert pair.spread == pytest.approx(0.05, abs=0.01)
    assert pair.p95_ratio == pytest.approx(math.exp(1.645 * 0.05), abs=0.02)
    assert pair.median_ratio == pytest.approx(1.0, abs=0.01)
    assert pair.samples == 400


def test_seconds_and_hours_count_alike() -> None:
    """Seconds span a thousandfold; the short jobs are not lost in the noise of the long ones."""
    of = [Shape(height=256, width=256), VIDEO] * 100
    assert TRUE.evaluate(VIDEO) / TRUE.evaluate(of[0]) > 10_000
    result = fitted(samples(of, noise=0.1), off_by(0.7))
    assert error(result.model, set(of)) < 0.03


def test_exact_samples_give_exact_coefficients() -> None:
    every = CostModel(**dict(zip(FEATURES, (0.3, 0.2, 0.02, 0.001, 0.05, 0.8, 0.05), strict=True)))
    random = Random(0)
    of = [
        shape.model_copy(
            update={
                "batch_size": random.choice((1, 2, 4)),
                "sequence_length": random.choice((16, 77, 512)),
            }
        )
        for shape in shapes(200)
    ]
    result = fitted(samples(of, model=every, noise=0.0), FLAT)
    assert result.model.pairs[PAIR].seconds.coefficients == pytest.approx(
        every.coefficients, rel=1e-3
    )
    assert result.model.pairs[PAIR].dropped == ()


def test_features_that_samples_cannot_tell_apart_are_dropped() -> None:
    """With one number of steps, a cost per step looks like a constant."""
    of = shapes(200, steps=(4,))
    result = fitted(samples(of, noise=0.02), FLAT)
    pair = result.model.pairs[PAIR]
    assert set(pair.dropped) >= {"per_step", "per_megapixel", "per_token"}
    for name in pair.dropped:
        assert getattr(pair.seconds, name) == 0.0
    assert error(result.model, set(of)) < 0.02
    # One shape only: a constant is all there is to say.
    result = fitted(samples([MEDIUM] * 100), FLAT)
    pair = result.model.pairs[PAIR]
    assert set(pair.dropped) == set(FEATURES) - {"constant"}
    assert pair.seconds.constant == pytest.approx(TRUE.evaluate(MEDIUM), rel=0.02)


def test_columns_that_are_sums_of_others_are_not_independent() -> None:
    from disagfusion.scheduling.performance.regression import feature_matrix, independent

    rows = feature_matrix(shapes(50, steps=(4,)))
    assert independent(rows, range(7), (), 1e-6) == [0, 1, 2]
    assert independent(rows, (6, 5, 4, 3, 2, 1, 0), (), 1e-6) == [6, 5, 4]
    assert independent(rows, (0, 1, 2), (4,), 1e-6) == [1, 2]
    assert independent(rows, (1,), (), 0.99) == [1]


def test_stragglers_do_not_bend_the_fit() -> None:
    from disagfusion.scheduling.performance.regression import regress

    random = Random(1)
    given_ = [
        replace(sample, seconds=sample.seconds * (20.0 if random.random() < 0.1 else 1.0))
        for sample in samples(shapes(300))
    ]
    plain = regress(
        [s.shape for s in given_], [s.seconds for s in given_], prior=None, settings=SETTINGS
    )
    assert plain is not None
    model = PerformanceModel(profile(a10={"model": times(plain.model, 1.0)}))
    assert error(model, set(shapes(300))) < 0.05
    # One in ten is more than one in twenty: the 95th percentile knows of them.
    assert plain.p95 > 10


@pytest.mark.parametrize(
    ("seconds", "jobs", "prior"),
    [(1e-6, 100, FLAT), (1e-6, 100, off_by(0.5)), (1e5, 25, off_by(0.5))],
)
@pytest.mark.parametrize("seed", range(4))
def test_absurd_samples_do_not_bend_the_fit(
    seconds: float, jobs: int, prior: Profile, seed: int
) -> None:
    given_ = samples(shapes(jobs, seed), seed=seed)
    for at in range(0, jobs, 20):
        given_[at] = replace(given_[at], seconds=seconds)
    result = fitted(given_, prior)
    assert reason(result) is Reason.ADOPTED
    assert error(result.model, set(shapes(jobs, seed))) < 0.1


def test_jobs_that_were_answered_from_a_cache_do_not_bend_the_fit() -> None:
    """A tenth takes a hundredth: relative to what is observed these would be most wrong."""
    random = Random(1)
    given_ = [
        replace(sample, seconds=sample.seconds * (0.01 if random.random() < 0.1 else 1.0))
        for sample in samples(shapes(300))
    ]
    result = fitted(given_, FLAT)
    assert reason(result) is Reason.ADOPTED
    assert error(result.model, set(shapes(300))) < 0.08


def test_beyond_what_was_sampled_it_follows_the_profile() -> None:
    of = shapes(200, sizes=(480, 512, 544), steps=(4,))
    for seed in range(5):
        given_ = samples(of, seed=seed)
        for factor in (0.5, 1.0, 2.0):
            # Proportions are the profile's, the level is that of the samples.
            allowed = PerformanceSettings(tolerance=0.5)
            result = fitted(given_, off_by(factor), settings=allowed)
            assert reason(result) is Reason.ADOPTED
            assert result.model.predict(*PAIR, VIDEO).extrapolated
            assert not result.model.predict(*PAIR, of[0]).extrapolated
            assert off(result.model, VIDEO, TRUE.evaluate(VIDEO)) < 0.05
    alone = fitted(given_, off_by(0.5), settings=PerformanceSettings(prior_weight=0.0))
    assert off(alone.model, VIDEO, TRUE.evaluate(VIDEO)) > 0.3


def test_much_noise_does_not_outweigh_the_profile_far_away() -> None:
    for seed in range(5):
        given_ = samples(shapes(200, seed), noise=0.3, seed=seed)
        result = fitted(given_, off_by(0.5), settings=PerformanceSettings(maximum_error=1.0))
        assert reason(result) is Reason.ADOPTED
        assert off(result.model, VIDEO, TRUE.evaluate(VIDEO)) < 0.15


def test_samples_outweigh_a_profile_of_wrong_proportions() -> None:
    wrong = profile(a10={"model": {"constant": 0.3, "per_step": 2.0, "per_step_megapixel": 0.1}})
    before = fitted(samples(shapes(25)), wrong)
    after = fitted(samples(shapes(500)), wrong)
    assert error(after.model, set(shapes(500))) < 0.1
    assert error(after.model, set(shapes(500))) < error(before.model, set(shapes(500)))


def test_peak_memory_is_a_bound_and_knows_no_steps() -> None:
    peak = CostModel(constant=10.0, per_megapixel=2.0)
    of = shapes(200)
    random = Random(0)
    given_ = [
        replace(sample, peak_bytes=round(sample.peak_bytes * random.uniform(0.9, 1.0)))
        for sample in samples(of, peak=peak)
        if sample.peak_bytes is not None
    ]
    result = fitted(given_, off_by(0.5))
    found = result.model.pairs[PAIR].peak_gib
    assert found is not None
    assert found.per_step == found.per_step_megapixel == found.per_step_megapixel_squared == 0.0
    for shape in of:
        predicted = result.model.predict(*PAIR, shape).peak_gib
        assert predicted is not None
        assert 0.98 * peak.evaluate(shape) < predicted < 1.15 * peak.evaluate(shape)
    above = sum(
        sample.peak_bytes > (result.model.predict(*PAIR, sample.shape).peak_gib or 0.0) * 2**30
        for sample in given_
        if sample.peak_bytes is not None
    )
    assert above <= 2


def test_peaks_are_not_put_down_to_steps() -> None:
    peak = CostModel(constant=10.0, per_megapixel=2.0)
    result = fitted(samples(shapes(80, steps=(4,)), peak=peak), FLAT)
    other = Shape(height=2048, width=2048, num_inference_steps=50)
    assert result.model.predict(*PAIR, other).peak_gib == pytest.approx(peak.evaluate(other))


def test_without_peaks_the_profile_says_what_memory_a_job_takes() -> None:
    prior = profile(a10={"model": times(TRUE, 0.5), "memory_gib": 14.0})
    few = samples(shapes(10), peak=CostModel(constant=3.0))
    result = fitted(few + samples(shapes(50)), prior)
    assert result.model.pairs[PAIR].peak_gib is None
    assert result.model.predict(*PAIR, MEDIUM).peak_gib == 14.0
    assert fitted(samples(shapes(50)), off_by(0.5)).model.predict(*PAIR, MEDIUM).peak_gib is None


def test_peaks_that_no_model_fits_are_not_believed() -> None:
    random = Random(0)
    given_ = [
        replace(sample, peak_bytes=round(2 ** random.uniform(20, 36)))
        for sample in samples(shapes(100))
    ]
    prior = profile(a10={"model": times(TRUE, 0.5), "memory_gib": 14.0})
    result = fitted(given_, prior)
    assert reason(result) is Reason.ADOPTED
    assert result.model.predict(*PAIR, MEDIUM).peak_gib == 14.0


def test_what_the_profile_does_not_know_is_fitted_without_it() -> None:
    unknown = samples(shapes(200), stage="upscaler", pool="h100")
    result = fitted(unknown, off_by(0.5))
    assert {(row.stage, row.reason) for row in result.results} == {
        ("dit", Reason.TOO_FEW_SAMPLES),
        ("upscaler", Reason.ADOPTED),
    }
    predicted = result.model.predict("upscaler", "h100", MEDIUM)
    assert predicted.seconds == pytest.approx(TRUE.evaluate(MEDIUM), rel=0.03)


def test_what_is_fitted_anew_needs_no_correction_and_the_rest_keeps_its_own() -> None:
    prior = profile(a10={"model": times(TRUE, 0.5)}, l4={"seconds": 9.0})
    corrected = PerformanceModel(prior).with_corrections({PAIR: 2.0, ("dit", "l4"): 1.3})
    result = fitted(samples(shapes(100)), prior, current=corrected)
    assert result.model.corrections == {("dit", "l4"): 1.3}
    assert off(result.model, MEDIUM, TRUE.evaluate(MEDIUM)) < 0.05


def test_the_samples_of_one_stage_and_pool_say_nothing_of_another() -> None:
    prior = profile(a10={"model": times(TRUE, 1.0)}, l4={"model": times(TRUE, 2.0)})
    both = samples(shapes(100), factor=0.5) + samples(shapes(100), pool="l4", factor=4.0)
    model = fitted(both, prior).model
    truth = TRUE.evaluate(MEDIUM)
    assert off(model, MEDIUM, 0.5 * truth) < 0.05
    assert off(model, MEDIUM, 4.0 * truth, pool="l4") < 0.05


shape_strategy = st.builds(
    Shape,
    height=st.sampled_from(SIZES),
    width=st.sampled_from(SIZES),
    num_frames=st.integers(1, 129),
    num_inference_steps=st.integers(1, 50),
    batch_size=st.integers(1, 8),
    sequence_length=st.integers(1, 512),
)


@settings(max_examples=10)
@given(
    st.lists(st.tuples(shape_strategy, st.floats(1e-6, 1e7)), min_size=20, max_size=40),
    st.sampled_from([FLAT, off_by(1.0), profile(l4={"seconds": 1.0})]),
    shape_strategy,
    st.sampled_from(sorted(Shape.model_fields)),
    st.integers(1, 4),
)
def test_whatever_was_sampled_nothing_is_negative_and_more_work_costs_no_less(
    given_: list[tuple[Shape, float]],
    prior: Profile,
    shape: Shape,
    field: str,
    times_as_much: int,
) -> None:
    sampled = [
        Sample("dit", "a10", of, seconds, round(seconds * 2**30), float(at))
        for at, (of, seconds) in enumerate(given_)
    ]
    open_gate = PerformanceSettings(maximum_error=1e12, tolerance=1e12)
    result = fitted(sampled, prior, settings=open_gate)
    (of_pair,) = [row for row in result.results if row.pool == "a10"]
    assert of_pair.reason in (Reason.ADOPTED, Reason.NOTHING_FITTED)
    pair = result.model.pairs.get(PAIR)
    if pair is not None:
        assert min(pair.seconds.coefficients) >= 0.0
        assert pair.p95_ratio >= 1.0
    larger = shape.model_copy(update={field: getattr(shape, field) * times_as_much})
    less, more = result.model.predict(*PAIR, shape), result.model.predict(*PAIR, larger)
    assert 0.0 < less.seconds <= more.seconds * (1 + 1e-12)
    assert less.seconds <= less.p95_seconds <= more.p95_seconds * (1 + 1e-12)
    if less.peak_gib is not None and more.peak_gib is not None:
        assert 0.0 < less.peak_gib <= more.peak_gib * (1 + 1e-12)
