from __future__ import annotations

import pytest

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
