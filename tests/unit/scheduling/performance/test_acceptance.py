"""Which fits are adopted, which are refused or given up, and what is held out to judge them by.

scikit-learn takes seconds to import; no module of tests does, so that a run that deselects these
tests does not pay for it.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from performancekit import (
    MEDIUM,
    PAIR,
    SETTINGS,
    fitted,
    off_by,
    reason,
    samples,
    shapes,
)

from disagfusion.scheduling.performance import PerformanceSettings, Provenance, Reason
from disagfusion.scheduling.performance.fitting import split


def test_too_few_samples_leave_what_is_there() -> None:
    result = fitted(samples(shapes(19)), off_by(0.5))
    assert reason(result) is Reason.TOO_FEW_SAMPLES
    assert result.model.version == 0
    assert result.model.predict(*PAIR, MEDIUM).provenance is Provenance.PROFILE
    assert reason(fitted(samples(shapes(20)), off_by(0.5))) is Reason.ADOPTED
    assert reason(fitted([], off_by(0.5))) is Reason.TOO_FEW_SAMPLES


def test_a_fit_far_from_what_it_has_not_seen_is_refused() -> None:
    random = Random(0)
    chaos = [
        replace(sample, seconds=10 ** random.uniform(-3, 3)) for sample in samples(shapes(100))
    ]
    result = fitted(chaos, off_by(0.5))
    assert reason(result) is Reason.HOLD_OUT_ERROR
    assert result.results[0].error is not None
    assert result.results[0].error > SETTINGS.maximum_error
    assert result.model.predict(*PAIR, MEDIUM).provenance is Provenance.PROFILE


def test_a_fit_that_is_worse_than_the_profile_is_refused() -> None:
    strict = PerformanceSettings(tolerance=0.0)
    reasons = set()
    for seed in range(8):
        # The profile is exact, so chance decides which of the two is nearer.
        given_ = samples(shapes(40, seed), seed=seed)
        (row,) = fitted(given_, off_by(1.0), settings=strict).results
        assert row.error is not None
        assert row.prior_error is not None
        refused = row.error > row.prior_error
        assert row.reason is (Reason.NO_BETTER if refused else Reason.ADOPTED)
        reasons.add(row.reason)
    assert reasons == {Reason.NO_BETTER, Reason.ADOPTED}


def test_a_fit_that_is_worse_than_the_current_one_is_refused_and_confirms_it() -> None:
    good = fitted(samples(shapes(400), noise=0.0), off_by(0.5), now=10_000.0).model
    assert good.version == 1
    strict = PerformanceSettings(tolerance=0.0)
    reasons = set()
    for seed in range(8):
        later = samples(shapes(20, seed), seed=seed)
        result = fitted(later, off_by(0.5), current=good, settings=strict, now=20_000.0)
        (row,) = result.results
        reasons.add(row.reason)
        assert row.error is not None
        assert row.current_error is not None
        refused = row.error > row.current_error
        assert row.reason is (Reason.NO_BETTER if refused else Reason.ADOPTED)
        kept = result.model.pairs[PAIR]
        assert (kept.seconds == good.pairs[PAIR].seconds) is refused
        assert (kept.version, kept.fitted_at) == ((1, 10_000.0) if refused else (2, 20_000.0))
        # A confirmation is news for whoever judges by age.
        assert (result.model.version, kept.confirmed_at) == (2, 20_000.0)
    assert reasons == {Reason.NO_BETTER, Reason.ADOPTED}


def test_the_same_samples_give_the_same_model() -> None:
    given_ = samples(shapes(100))
    first = fitted(given_, off_by(0.5))
    again = fitted(given_, off_by(0.5), current=first.model, now=11_000.0)
    assert reason(again) is Reason.UNCHANGED
    assert again.model.pairs[PAIR].version == 1
    assert again.model.pairs[PAIR].confirmed_at == 11_000.0
    shuffled = list(given_)
    Random(3).shuffle(shuffled)
    assert fitted(shuffled, off_by(0.5)).model.pairs[PAIR].seconds.coefficients == pytest.approx(
        first.model.pairs[PAIR].seconds.coefficients, rel=1e-6
    )


def test_a_fit_that_the_profile_beats_is_given_up() -> None:
    wrong = fitted(samples(shapes(100), factor=3.0), off_by(1.0))
    assert reason(wrong) is Reason.ADOPTED
    right = samples(shapes(100), noise=0.02)
    # Half of the jobs say nothing that a model could hold; so there is no new fit.
    random = Random(0)
    noisy = [
        replace(sample, seconds=sample.seconds * (10 ** random.uniform(-3, 3) if at % 2 else 1.0))
        for at, sample in enumerate(right)
    ]
    result = fitted(
        noisy, off_by(1.0), current=wrong.model, settings=PerformanceSettings(maximum_error=0.02)
    )
    assert reason(result) is Reason.REVERTED
    assert result.model.predict(*PAIR, MEDIUM).provenance is Provenance.PROFILE
    assert result.model.version == 2


def test_a_fit_that_nothing_confirms_is_given_up_in_the_end() -> None:
    model = fitted(samples(shapes(100)), off_by(0.5), now=0.0).model
    within = fitted([], off_by(0.5), current=model, now=SETTINGS.model_age)
    assert reason(within) is Reason.TOO_FEW_SAMPLES
    assert within.model.predict(*PAIR, MEDIUM).provenance is Provenance.FITTED
    after = fitted([], off_by(0.5), current=model, now=SETTINGS.model_age + 1.0)
    assert reason(after) is Reason.STALE
    assert after.model.predict(*PAIR, MEDIUM).provenance is Provenance.PROFILE
    assert after.model.version == model.version + 1


def test_another_profile_takes_the_place_of_the_one_before() -> None:
    model = fitted(samples(shapes(100)), off_by(0.5)).model
    result = fitted([], off_by(3.0), current=model)
    assert result.model.profile == off_by(3.0)
    assert result.model.pairs == model.pairs


def test_the_samples_held_out_are_the_same_each_time() -> None:
    given_ = samples(shapes(100))
    train, held_out = split(given_, 0.2)
    assert len(held_out) == 20
    assert sorted([*train, *held_out], key=lambda s: s.at) == given_
    shuffled = list(given_)
    Random(1).shuffle(shuffled)
    assert split(shuffled, 0.2) == (train, held_out)
    # Samples that come later hardly change the choice.
    more = split(samples(shapes(110)), 0.2)[1]
    assert len(set(map(id, more))) == 22
    assert sum(sample in more for sample in held_out) >= 16
    assert len(split(given_[:2], 0.2)[1]) == 1
