from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.balancer.forecast import History
from disagfusion.scheduling.shapes import Shape

ONE, TWO = Shape(), Shape(num_inference_steps=2)


def test_rates_of_late() -> None:
    history = History()
    assert history.rates(0.0, 60.0) == {}
    history = history.add({}, 0.0, 60.0)
    for at in range(10, 130, 10):
        history = history.add({ONE: 2} if at <= 60 else {TWO: 1}, float(at), 60.0)
    rates = history.rates(120.0, 60.0)
    assert set(rates) == {TWO}
    assert rates[TWO] == pytest.approx(0.1)


def test_before_the_window_is_full_the_time_that_was_seen_counts() -> None:
    history = History().add({}, 100.0, 60.0).add({ONE: 3}, 110.0, 60.0)
    assert history.rates(110.0, 60.0) == {ONE: pytest.approx(0.3)}


def test_memory_is_bounded_by_the_window() -> None:
    history = History()
    for at in range(10_000):
        history = history.add({ONE: 1}, float(at), 60.0)
    assert len(history.counts) <= 61
    assert history.rates(9_999.0, 60.0)[ONE] == pytest.approx(1.0, rel=0.05)


def test_a_shorter_window_within_what_is_remembered() -> None:
    history = History().add({}, 0.0, 900.0)
    for at in range(10, 610, 10):
        history = history.add({ONE: 1} if at <= 540 else {TWO: 2}, float(at), 900.0)
    assert history.rates(600.0, 60.0) == {TWO: pytest.approx(0.2)}
    assert history.rates(600.0, 900.0)[ONE] == pytest.approx(0.09)


def counted(*counts: tuple[float, dict[Shape, int]]) -> History:
    history = History().add({}, 0.0, 900.0)
    for at, arrived in counts:
        history = history.add(arrived, at, 900.0)
    return history


def test_the_window_is_cut_where_the_mix_shifts() -> None:
    before = [(10.0 * i, {ONE: 4}) for i in range(1, 31)]
    since = [(300.0 + 10.0 * i, {ONE: 1, TWO: 3}) for i in range(1, 4)]
    history = counted(*before, *since)
    assert history.rates(330.0, 180.0)[TWO] < 0.06
    assert history.rates(330.0, 180.0, sigmas=3.5) == {
        ONE: pytest.approx(0.1),
        TWO: pytest.approx(0.3),
    }


def test_one_rare_job_is_no_shift() -> None:
    history = counted(*((10.0 * i, {ONE: 1}) for i in range(1, 30)), (300.0, {ONE: 1, TWO: 1}))
    assert history.rates(300.0, 180.0, sigmas=3.5) == history.rates(300.0, 180.0)


def test_the_end_of_arrivals_is_a_shift() -> None:
    history = counted(
        *((10.0 * i, {ONE: 4}) for i in range(1, 31)),
        *((300.0 + 10.0 * i, {}) for i in range(1, 6)),
    )
    assert history.rates(350.0, 180.0, sigmas=3.5) == {}


@given(rate=st.floats(0.05, 5.0), seed=st.integers(0, 10_000))
def test_a_steady_stream_is_seldom_cut(rate: float, seed: int) -> None:
    random = Random(seed)
    counts = []
    for i in range(1, 19):
        number, at = 0, random.expovariate(rate)
        while at < 10.0:
            number, at = number + 1, at + random.expovariate(rate)
        counts.append((10.0 * i, {ONE: number}))
    history = counted(*counts)
    # Whatever chance did, six deviations are beyond it; and what is cut off is only ever the past.
    assert history.rates(180.0, 180.0, sigmas=6.0) == history.rates(180.0, 180.0)
