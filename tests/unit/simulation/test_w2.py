"""The published three-phase run: fixed ratios give what a FIFO tandem of queues gives."""

from __future__ import annotations

import pytest
from simulationkit.runs import example_profile, example_workload, simulate


@pytest.mark.parametrize(
    ("ratio", "finished", "last", "p50", "p95"),
    [
        ("1:6:1", (24, 31, 33), 1887, 465, 866),
        ("1:5:2", (20, 27, 40), 1557, 467, 595),
        ("2:4:2", (16, 16, 30), 1872, 714, 906),
        ("2:5:1", (20, 24, 33), 1986, 564, 965),
    ],
)
def test_fixed_ratios(
    ratio: str, finished: tuple[int, ...], last: float, p50: float, p95: float
) -> None:
    result = simulate(f"static:{ratio}", example_workload(), example_profile())
    assert result.finished_in_windows == finished
    assert result.last_finish_seconds == pytest.approx(last, abs=1)
    assert result.latency_seconds["p50"] == pytest.approx(p50, abs=1)
    assert result.latency_seconds["p95"] == pytest.approx(p95, abs=1)


def test_the_balancer_finishes_in_time_and_loses_nothing() -> None:
    result = simulate("hybrid", example_workload(), example_profile())
    assert result.last_finish_seconds <= 1470
    assert result.latency_seconds["p95"] <= 515
    assert (result.lost, result.budget_exceeded, result.completed) == (0, 0, 189)
