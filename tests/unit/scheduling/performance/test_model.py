"""The model: on what a prediction rests, and what the planner and metrics get of it."""

from __future__ import annotations

from typing import Any

import pytest
from performancekit import (
    MEDIUM,
    PAIR,
    SETTINGS,
    TRUE,
    VIDEO,
    fitted,
    off_by,
    profile,
    samples,
    shapes,
    times,
)

from disagfusion.errors import InvalidArgumentError, NotFoundError
from disagfusion.scheduling.performance import (
    FactorSource,
    Loan,
    PerformanceModel,
    Provenance,
)
from disagfusion.scheduling.performance.borrow import borrow
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape, WeightedShape

TRUTH = TRUE.evaluate(MEDIUM)


def of_two_stages(**pools: dict[str, float]) -> Profile:
    """Return a profile with seconds of each stage by pool."""
    stages: dict[str, dict[str, Any]] = {}
    for pool, seconds in pools.items():
        for stage, value in seconds.items():
            stages.setdefault(stage, {"pools": {}})["pools"][pool] = {"seconds": value}
    return Profile.model_validate(
        {"pools": {name: {"accelerators": 1} for name in (*pools, "h100")}, "stages": stages}
    )


def model_of(*given: tuple[str, str, float], prior: Profile) -> PerformanceModel:
    """Fit a hundred jobs for each stage, pool and factor on the truth."""
    of = [
        sample
        for stage, pool, factor in given
        for sample in samples(shapes(100), noise=0.01, stage=stage, pool=pool, factor=factor)
    ]
    return fitted(of, prior).model


# On what a prediction rests


def test_without_samples_it_says_what_the_profile_says() -> None:
    prior = profile(a10={"seconds": 74.2, "p95_ratio": 1.5, "memory_gib": 20.0})
    predicted = PerformanceModel(prior).predict("dit", "a10", MEDIUM)
    assert (predicted.seconds, predicted.p95_seconds, predicted.peak_gib) == (
        74.2,
        pytest.approx(111.3),
        20.0,
    )
    assert predicted.provenance is Provenance.PROFILE
    assert not predicted.extrapolated
    by_shape = PerformanceModel(off_by(2.0)).predict("dit", "a10", VIDEO)
    assert by_shape.seconds == pytest.approx(2.0 * TRUE.evaluate(VIDEO))
    assert by_shape.peak_gib is None


def test_a_fit_goes_before_the_profile() -> None:
    model = model_of(("dit", "a10", 1.0), prior=off_by(0.5))
    predicted = model.predict("dit", "a10", MEDIUM)
    assert predicted.provenance is Provenance.FITTED
    assert predicted.seconds == pytest.approx(TRUTH, rel=0.02)
    assert predicted.p95_seconds > predicted.seconds


def test_what_was_not_sampled_is_extrapolated() -> None:
    model = model_of(("dit", "a10", 1.0), prior=off_by(0.5))
    assert not model.predict(*PAIR, MEDIUM).extrapolated
    for field in Shape.model_fields:
        larger = Shape(height=2048, width=2048, num_inference_steps=50, **{}).model_copy(
            update={field: 4096}
        )
        assert model.predict(*PAIR, larger).extrapolated, field
    assert model.predict(*PAIR, Shape(height=128, width=128)).extrapolated


def test_a_correction_multiplies_seconds_and_nothing_else() -> None:
    prior = profile(a10={"seconds": 10.0, "p95_ratio": 1.2, "memory_gib": 20.0})
    plain = PerformanceModel(prior)
    before = plain.predict(*PAIR, MEDIUM)
    model = plain.with_corrections({PAIR: 1.5})
    assert model.predict(*PAIR, MEDIUM).seconds == 15.0
    assert model.predict(*PAIR, MEDIUM).p95_seconds == pytest.approx(18.0)
    assert model.predict(*PAIR, MEDIUM).peak_gib == 20.0
    assert plain.predict(*PAIR, MEDIUM) == before
    assert model.with_corrections({PAIR: 1.0}).corrections == {}
    assert model.with_corrections({PAIR: 1.5}) is model


def test_a_weighted_shape_is_the_shape() -> None:
    model = PerformanceModel(off_by(1.0))
    weighted = WeightedShape(**MEDIUM.model_dump(), weight=3.0)
    assert model.predict(*PAIR, weighted) == model.predict(*PAIR, MEDIUM)


def test_a_shape_beyond_all_numbers_is_refused() -> None:
    model = PerformanceModel(profile(a10={"model": {"per_megapixel_squared": 1e200}}))
    for pixels in (10**80, 10**200):
        with pytest.raises(InvalidArgumentError, match="shape: too large"):
            model.predict(*PAIR, Shape(height=pixels, width=pixels))


def test_a_stage_that_nobody_knows_is_an_error() -> None:
    model = PerformanceModel(off_by(1.0))
    assert not model.knows("upscaler")
    with pytest.raises(NotFoundError, match="nothing is known of the stage 'upscaler'"):
        model.predict("upscaler", "a10", MEDIUM)


def test_a_stale_fit_gives_way_to_the_profile() -> None:
    model = model_of(("dit", "a10", 1.0), ("upscaler", "a10", 1.0), prior=off_by(0.5))
    model = model.with_corrections({PAIR: 1.8})
    at = 10_000.0 + SETTINGS.model_age
    assert model.as_of(at, SETTINGS.model_age) is model
    late = model.as_of(at + 1.0, SETTINGS.model_age)
    predicted = late.predict(*PAIR, MEDIUM)
    assert predicted.provenance is Provenance.PROFILE
    assert predicted.seconds == pytest.approx(0.5 * 1.8 * TRUTH)
    # Where there is nothing else an old fit is better than none, and says what it is.
    alone = late.predict("upscaler", "a10", MEDIUM)
    assert alone.provenance is Provenance.STALE
    assert alone.seconds == pytest.approx(TRUTH, rel=0.02)
    # And another pool may borrow it.
    assert late.predict("upscaler", "h100", MEDIUM).provenance is Provenance.BORROWED


# Unseen pools


def test_an_unseen_pool_borrows_by_the_profiles_ratio() -> None:
    prior = of_two_stages(
        a10={"encoder": 6.0, "decoder": 10.0, "dit": 70.0}, h100={"encoder": 2.0, "decoder": 5.0}
    )
    model = PerformanceModel(prior)
    predicted = model.predict("dit", "h100", MEDIUM)
    assert predicted.provenance is Provenance.BORROWED
    assert predicted.seconds == pytest.approx(70.0 * (1 / 3 * 1 / 2) ** 0.5)
    row = model.summary_of("dit", "h100", 0.0)
    assert (row.lender, row.factor_source) == ("a10", FactorSource.PROFILE)
    assert row.speed_factor == pytest.approx((1 / 6) ** 0.5)


def test_an_unseen_pool_borrows_by_the_ratio_of_fits() -> None:
    prior = of_two_stages(a10={"encoder": 1.0, "dit": 50.0})
    model = model_of(
        ("encoder", "a10", 1.0), ("encoder", "h100", 0.25), ("dit", "a10", 10.0), prior=prior
    )
    predicted = model.predict("dit", "h100", MEDIUM)
    assert predicted.provenance is Provenance.BORROWED
    assert predicted.seconds == pytest.approx(2.5 * TRUTH, rel=0.05)
    assert predicted.extrapolated is False
    assert model.predict("dit", "h100", VIDEO).extrapolated
    assert model.summary_of("dit", "h100", 0.0).factor_source is FactorSource.FITTED


def test_an_unseen_pool_without_any_ratio_counts_as_equally_fast() -> None:
    prior = profile(a10={"seconds": 10.0, "memory_gib": 20.0})
    model = PerformanceModel(prior)
    predicted = model.predict("dit", "spare", MEDIUM)
    assert (predicted.seconds, predicted.peak_gib) == (10.0, 20.0)
    row = model.summary_of("dit", "spare", 0.0)
    assert (row.lender, row.speed_factor, row.factor_source) == ("a10", 1.0, FactorSource.NONE)


def test_it_borrows_from_where_the_ratio_is_known_best() -> None:
    prior = of_two_stages(
        l4={"dit": 100.0, "encoder": 4.0}, a10={"dit": 70.0}, h100={"encoder": 1.0}
    )
    model = PerformanceModel(prior)
    assert model.predict("dit", "h100", MEDIUM).seconds == pytest.approx(25.0)
    # Without a ratio: from where it was fitted.
    fit = model_of(("dit", "a10", 1.0), prior=of_two_stages(l4={"dit": 9.0}, a10={"dit": 70.0}))
    assert fit.summary_of("dit", "h100", 0.0).lender == "a10"
    # Without that: by name, whatever the order.
    plain = PerformanceModel(of_two_stages(l4={"dit": 9.0}, a10={"dit": 7.0}))
    assert plain.predict("dit", "h100", MEDIUM).seconds == 7.0


def test_a_pool_does_not_borrow_from_itself() -> None:
    assert borrow("dit", "a10", off_by(1.0), {}) is None
    assert borrow("dit", "spare", off_by(1.0), {}) == Loan("a10", 1.0, FactorSource.NONE)
    assert borrow("upscaler", "spare", off_by(1.0), {}) is None


def test_neither_throttling_nor_its_correction_is_lent() -> None:
    model = PerformanceModel(profile(a10={"seconds": 10.0})).with_corrections({PAIR: 2.0})
    assert model.predict("dit", "spare", MEDIUM).seconds == 10.0
    own = model.with_corrections({("dit", "spare"): 0.5})
    assert own.predict("dit", "spare", MEDIUM).seconds == 5.0


def test_the_first_fit_on_an_unseen_pool_has_what_it_borrowed_as_its_prior() -> None:
    prior = off_by(1.0)
    narrow = samples(shapes(60, sizes=(512,), steps=(4,)), pool="spare", factor=0.5)
    model = fitted(narrow, prior).model
    predicted = model.predict("dit", "spare", VIDEO)
    assert predicted.provenance is Provenance.FITTED
    assert predicted.seconds == pytest.approx(0.5 * TRUE.evaluate(VIDEO), rel=0.05)


# For the planner


def test_the_planner_gets_the_profile_with_what_was_fitted() -> None:
    prior = Profile.model_validate(
        {
            "name": "mine",
            "pools": {"a10": {"accelerators": 8}, "l4": {"accelerators": 2, "memory_gib": 24}},
            "stages": {
                "encoder": {"pools": {"a10": {"seconds": 5.0}, "l4": {"seconds": 7.0}}},
                "dit": {
                    "min": 2,
                    "weights_gib": 9.0,
                    "pools": {
                        "a10": {"model": times(TRUE, 0.5), "accelerators": 2, "memory_gib": 21.0},
                        "l4": {"model": times(TRUE, 3.0)},
                    },
                },
            },
            "monoliths": {"resident": {"pool": "a10"}},
        }
    )
    model = model_of(("dit", "a10", 1.0), ("dit", "h100", 0.1), prior=prior).with_corrections(
        {PAIR: 1.5, ("encoder", "l4"): 2.0, ("dit", "l4"): 0.5}
    )
    result = model.to_profile()
    assert Profile.model_validate(result.model_dump()) == result
    dit = result.stages["dit"]
    for shape in (MEDIUM, VIDEO):
        for stage, pool in (PAIR, ("dit", "l4"), ("encoder", "a10"), ("encoder", "l4")):
            assert result.stages[stage].pools[pool].seconds_of(shape) == pytest.approx(
                model.predict(stage, pool, shape).seconds
            )
    assert dit.pools["a10"].seconds_of(MEDIUM) == pytest.approx(1.5 * TRUTH, rel=0.02)
    assert dit.pools["a10"].p95_ratio == model.pairs[PAIR].p95_ratio
    assert (dit.pools["a10"].accelerators, dit.pools["a10"].memory_of(MEDIUM)) == (2, 21.0)
    assert dit.pools["l4"].memory_gib is None
    # What is not about cost stays, and a stage gets no pool that it did not have.
    assert set(dit.pools) == {"a10", "l4"}
    assert (dit.min, dit.weights_gib, result.monoliths) == (2, 9.0, prior.monoliths)
    assert result.stages["encoder"].pools["a10"] is prior.stages["encoder"].pools["a10"]
    assert PerformanceModel(prior).to_profile() == prior


# For metrics


def test_the_summary_has_a_row_for_each_stage_and_pool() -> None:
    prior = profile(a10={"model": times(TRUE, 0.5)}, l4={"seconds": 9.0})
    model = model_of(("dit", "a10", 1.0), prior=prior).with_corrections(
        {("dit", "l4"): 1.4, ("dit", "spare"): 0.8, ("gone", "l4"): 2.0}
    )
    a10, l4, spare = model.summary(10_060.0)
    assert (a10.pool, a10.provenance, a10.version, a10.samples, a10.age, a10.correction) == (
        "a10",
        Provenance.FITTED,
        1,
        100,
        60.0,
        1.0,
    )
    assert a10.error == pytest.approx(0.007, abs=0.005)
    assert (l4.provenance, l4.version, l4.samples, l4.error, l4.age, l4.correction) == (
        Provenance.PROFILE,
        0,
        0,
        None,
        None,
        1.4,
    )
    # A lender's samples are not the borrower's.
    assert (spare.provenance, spare.samples, spare.correction, spare.lender) == (
        Provenance.BORROWED,
        0,
        0.8,
        "a10",
    )
