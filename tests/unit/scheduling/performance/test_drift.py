"""The fast correction and the detector of drifts."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from performancekit import MEDIUM, SETTINGS

from disagfusion.scheduling.performance import Drift, PerformanceSettings


def observe(drift: Drift, ratios: list[float], *, start: int = 0) -> list[float]:
    """Show a drift jobs, one a second; return since when each confirmed one is said to be."""
    confirmed = []
    for second, ratio in enumerate(ratios, start):
        since = drift.observe(MEDIUM, 10.0 * ratio, float(second), predicted=10.0, spread=0.05)
        if since is not None:
            confirmed.append(since)
    return confirmed


def noisy(count: int, ratio: float = 1.0, seed: int = 0, noise: float = 0.05) -> list[float]:
    random = Random(seed)
    return [ratio * random.lognormvariate(0.0, noise) for _ in range(count)]


def test_nothing_is_corrected_without_a_job() -> None:
    drift = Drift(SETTINGS)
    assert drift.factor == 1.0
    assert not drift.drifted


@pytest.mark.parametrize("seed", range(20))
def test_a_pool_throttled_to_60_percent_is_reflected_after_ten_jobs(seed: int) -> None:
    drift = Drift(SETTINGS)
    assert observe(drift, noisy(100, seed=seed)) == []
    assert abs(math.log(drift.factor)) < 0.1
    (since,) = observe(drift, noisy(10, 1 / 0.6, seed=seed + 100), start=100)
    assert drift.factor == pytest.approx(1 / 0.6, rel=0.1)
    assert drift.drifted
    assert abs(since - 100) <= 2
    # And when it is no longer throttled.
    (since,) = observe(drift, noisy(10, seed=seed + 200), start=110)
    assert drift.factor == pytest.approx(1.0, rel=0.1)
    assert not drift.drifted
    assert abs(since - 110) <= 2


@pytest.mark.parametrize("jobs_before", [0, 1, 5, 50])
@pytest.mark.parametrize("ratio", [0.01, 10.0, 1000.0])
def test_stragglers_do_not_move_it_much(jobs_before: int, ratio: float) -> None:
    drift = Drift(SETTINGS)
    observe(drift, noisy(jobs_before))
    for _ in range(3):
        assert observe(drift, [ratio], start=jobs_before) == []
        assert abs(math.log(drift.factor)) < 0.15
        assert not drift.drifted


def test_one_straggler_in_ten_confirms_no_drift() -> None:
    drift = Drift(SETTINGS)
    jobs = noisy(2_000)
    jobs[::10] = [10.0] * 200
    assert observe(drift, jobs) == []
    assert drift.factor == pytest.approx(1.0, abs=0.1)


def test_steady_jobs_confirm_no_drift() -> None:
    assert sum(len(observe(Drift(SETTINGS), noisy(2_000, seed=seed))) for seed in range(10)) == 0


def test_a_change_that_does_not_matter_is_no_drift() -> None:
    # So low a threshold is passed by chance all the time.
    drift = Drift(PerformanceSettings(drift_threshold=3.0, dead_band=0.2))
    assert observe(drift, noisy(2_000)) == []
    assert observe(drift, noisy(30, 1.1), start=2_000) == []
    assert len(observe(drift, noisy(30, 1.5), start=2_030)) == 1


def test_a_creeping_change_is_confirmed() -> None:
    drift = Drift(SETTINGS)
    jobs = [value * (1 + job / 300) for job, value in enumerate(noisy(300))]
    assert observe(drift, jobs)
    assert drift.drifted
    assert drift.factor == pytest.approx(2.0, rel=0.1)


def test_jobs_that_are_no_reliable_evidence_correct_but_confirm_nothing() -> None:
    drift = Drift(SETTINGS)
    for second in range(30):
        assert (
            drift.observe(MEDIUM, 20.0, float(second), predicted=10.0, spread=0.0, steady=False)
            is None
        )
    assert drift.factor == pytest.approx(2.0)
    assert not drift.drifted


def test_noise_that_is_known_is_taken_for_noise() -> None:
    jobs = noisy(500, noise=0.4)
    drift = Drift(SETTINGS)
    assert not [
        since
        for second, ratio in enumerate(jobs)
        if (since := drift.observe(MEDIUM, ratio, float(second), predicted=1.0, spread=0.4))
    ]


@given(st.lists(st.floats(1e-6, 1e6), max_size=40), st.floats(0.25, 4.0))
def test_the_factor_has_bounds_whatever_comes(ratios: list[float], first: float) -> None:
    drift = Drift(SETTINGS, first)
    observe(drift, ratios)
    assert 0.25 * 0.999 <= drift.factor <= 4.0 * 1.001
    assert drift.factor == 1.0 or abs(drift.factor - 1.0) >= 0.04


def test_small_differences_are_not_corrected() -> None:
    drift = Drift(SETTINGS)
    observe(drift, [1.03] * 30)
    assert drift.factor == 1.0


def test_a_correction_goes_on_after_a_restart_until_jobs_say_otherwise() -> None:
    drift = Drift(SETTINGS, 1.5)
    assert drift.factor == pytest.approx(1.5)
    assert drift.drifted
    observe(drift, [1.0] * 3)
    assert drift.factor == pytest.approx(1.5)
    observe(drift, [1.0] * 3)
    assert drift.factor == 1.0


def test_another_model_is_compared_with_the_same_jobs() -> None:
    drift = Drift(SETTINGS)
    observe(drift, [2.0] * 20)
    assert drift.drifted
    drift.rebase(lambda shape: 20.0)
    assert drift.factor == 1.0
    assert not drift.drifted
    drift.rebase(lambda shape: 40.0)
    assert drift.factor == pytest.approx(0.5)


def test_what_is_too_old_corrects_nothing() -> None:
    drift = Drift(SETTINGS)
    observe(drift, [2.0] * 20)
    drift.forget(10.0)
    assert drift.factor == pytest.approx(2.0)
    drift.forget(20.0)
    assert drift.factor == 1.0
    assert not drift.drifted


def test_times_out_of_order_do_no_harm() -> None:
    drift = Drift(SETTINGS)
    for job in range(60):
        drift.observe(MEDIUM, 3.0, 1000.0 - job, predicted=1.0, spread=0.0)
    assert drift.factor == pytest.approx(3.0)
