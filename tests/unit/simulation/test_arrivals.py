from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from simulationkit.runs import example_workload, workload

from disagfusion.errors import InvalidArgumentError
from disagfusion.simulation.arrivals import Arrival, draw_arrivals
from disagfusion.simulation.workload import Workload


def draw(what: Workload, seed: int = 0) -> list[Arrival]:
    return list(draw_arrivals(what, 3, lambda stream: random.Random(f"{seed}/{stream}")))


def test_three_phases_of_regular_streams() -> None:
    jobs = draw(example_workload())
    assert len(jobs) == 189
    assert [job.at for job in jobs[:3]] == [0.0, 10.0, 20.0]
    # Two streams meet: the file's order decides.
    assert [(job.at, job.shape) for job in jobs if job.at == 390.0] == [
        (390.0, "four-step"),
        (390.0, "one-step"),
    ]
    assert jobs[-1].at == 985.0


def test_a_regular_stream_does_not_drift() -> None:
    jobs = draw(workload(arrivals=[{"shapes": {"one": 1}, "every": 0.1, "end": 1000}]))
    assert len(jobs) == 10_000
    assert jobs[-1].at == pytest.approx(999.9, abs=1e-9)


def test_poisson_arrivals_come_at_their_rate() -> None:
    stream = {"shapes": {"one": 1}, "rate": 2.0, "process": "poisson", "end": 5000}
    assert 9_700 < len(draw(workload(arrivals=[stream]))) < 10_300


@pytest.mark.parametrize(
    ("fields", "first", "second"),
    [
        ({"final_rate": 3.0, "rate": 1.0}, 1500, 2500),
        ({"rate": 2.0, "amplitude": 1.0, "period": 2000}, 3273, 727),
    ],
)
@pytest.mark.parametrize("process", ["regular", "poisson"])
def test_rates_change(process: str, fields: dict[str, Any], first: int, second: int) -> None:
    stream = {"shapes": {"one": 1}, "end": 2000, "process": process, **fields}
    jobs = draw(workload(arrivals=[stream]))
    early = sum(job.at < 1000 for job in jobs)
    assert early == pytest.approx(first, rel=0.07)
    assert len(jobs) - early == pytest.approx(second, rel=0.07)


def at(**stream: Any) -> list[float]:
    return [job.at for job in draw(workload(arrivals=[{"shapes": {"one": 1}, **stream}]))]


def test_a_regular_job_comes_where_the_integral_of_the_rate_has_grown_by_one() -> None:
    # 0.0001 t per second: 0.00005 t² jobs.
    rising = at(rate=0, final_rate=0.1, start=50, end=1050)
    assert rising == pytest.approx([50 + math.sqrt(n / 0.00005) for n in range(50)], rel=1e-9)
    assert at(rate=0.1, final_rate=0, end=1000)[-1] == pytest.approx(1000 - math.sqrt(1 / 0.00005))
    wave = at(rate=0.05, amplitude=1, period=1000, end=10_000)
    assert len(wave) == 500
    for number, instant in enumerate(wave):
        phase = 2 * math.pi * instant / 1000
        due = 0.05 * (instant + (1 - math.cos(phase)) * 1000 / (2 * math.pi))
        assert due == pytest.approx(number, abs=1e-6)


@pytest.mark.parametrize("process", ["regular", "poisson"])
def test_seconds_between_jobs_change_as_their_rate_does(process: str) -> None:
    changed = {"final_rate": 0.2, "amplitude": 0.5, "period": 300, "end": 20_000}
    by_rate, by_every = (
        at(process=process, **changed, **first) for first in ({"rate": 0.05}, {"every": 20})
    )
    assert by_every == pytest.approx(by_rate)
    assert len(by_every) == pytest.approx(2500, rel=0.05)


def test_as_many_jobs_as_asked_for_of_a_wave_that_does_not_end() -> None:
    assert at(every=20, amplitude=1, period=1000, count=60)[49:51] == pytest.approx(
        [978.6, 1000.0], abs=0.1
    )


@pytest.mark.parametrize("process", ["regular", "poisson"])
def test_no_job_at_no_rate(process: str) -> None:
    assert at(rate=0, end=100, process=process) == []


def test_the_first_regular_job_comes_at_the_start_whatever_the_rate() -> None:
    assert at(rate=5e-324, start=3, end=100) == [3.0]


@example(rate=5e-324, final=None, amplitude=0.0, period=None, end=1.0)
@given(
    rate=st.floats(0, 3),
    final=st.none() | st.floats(0, 3),
    amplitude=st.floats(0, 1),
    period=st.none() | st.floats(1, 400),
    end=st.floats(1, 300),
)
def test_regular_jobs_come_in_order_and_are_as_many_as_the_rate_says(
    rate: float, final: float | None, amplitude: float, period: float | None, end: float
) -> None:
    wave = {"amplitude": amplitude, "period": period}
    jobs = at(rate=rate, final_rate=final, end=end, **wave)
    assert jobs == sorted(jobs)
    assert all(0.0 <= instant < end for instant in jobs)
    length = period or end

    def share(passed: float) -> float:
        base = rate if final is None else rate + (final - rate) * passed / end
        return base * (1 + amplitude * math.sin(2 * math.pi * passed / length))

    steps = 20_000
    due = math.fsum(share((i + 0.5) * end / steps) for i in range(steps)) * end / steps
    assert math.ceil(due - 0.02) <= len(jobs) <= math.ceil(due + 0.02)


def test_shapes_by_weight_and_in_turn() -> None:
    shapes: dict[str, Any] = {"a": {}, "b": {"num_inference_steps": 2}}
    stream = {"shapes": {"a": 3, "b": 1}, "every": 1, "count": 4000}
    drawn = draw(workload(shapes=shapes, arrivals=[stream]))
    assert 2_850 < sum(job.shape == "a" for job in drawn) < 3_150
    turns = draw(workload(shapes=shapes, arrivals=[{**stream, "turns": True}]))
    assert [job.shape for job in turns[:4]] == ["a", "b", "a", "b"]


@given(
    jitter=st.floats(0, 20),
    cut=st.floats(10, 400),
    seed=st.integers(0, 1000),
    process=st.sampled_from(["regular", "poisson"]),
)
def test_jobs_come_in_order_and_later_ones_do_not_matter(
    jitter: float, cut: float, seed: int, process: str
) -> None:
    def made(end: float) -> Workload:
        first = {"shapes": {"one": 1}, "rate": 0.3, "process": process, "end": 500}
        later = {"shapes": {"one": 1}, "rate": 0.1, "process": process, "start": cut, "end": end}
        noise = {"arrival_seconds": jitter, "service_ratio": 0.1}
        return workload(arrivals=[first, later], noise=noise)

    whole, cut_off = draw(made(cut + 900), seed), draw(made(cut + 1), seed)
    assert [job.at for job in whole] == sorted(job.at for job in whole)
    before = cut - jitter
    assert [job.at for job in whole if job.at < before] == [
        job.at for job in cut_off if job.at < before
    ]


def test_a_trace_is_taken_as_it_is() -> None:
    jobs = draw(workload(trace=[[7.5, "one"], [1.25, "one"]]))
    assert [job.at for job in jobs] == [1.25, 7.5]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "workload: expected `arrivals` or `trace`"),
        ({"trace": [[1, "two"]]}, "trace: no shape 'two'; there are: one"),
        ({"arrivals": [{"shapes": {"one": 1}, "count": 1}]}, "arrivals.0: expected one of `every`"),
        ({"arrivals": [{"shapes": {"one": 1}, "every": 1}]}, "must come to an end"),
        ({"arrivals": [{"shapes": {"one": 1}, "every": 0, "count": 1}]}, "arrivals.0.every"),
        ({"arrivals": [{"shapes": {"one": 1}, "rate": 0, "count": 1}]}, "where the rate changes"),
        ({"arrivals": [{"shapes": {"one": 1}, "every": 1, "start": 5, "end": 5}]}, "after `start`"),
        (
            {"arrivals": [{"shapes": {"one": 1}, "every": 1, "count": 9, "amplitude": 0.5}]},
            "arrivals.0: expected `period` or `end`",
        ),
        ({"trace": [[1, "one"]], "budget": 0}, "budget"),
        ({"trace": [[True, "one"]]}, "trace.0.0: expected a number"),
        (
            {"trace": [[1, "one"]], "measure": {"windows": [[0, 9], [100, 50]]}},
            "measure: windows.1: 100 to 50; expected the earlier time first",
        ),
        (
            {"trace": [[1, "one"]], "throttles": [{"start": 9, "end": 8, "speed": 0.5}]},
            "throttles.0: expected `end` after `start`, which is 9",
        ),
        ({"trace": [[1, "one"]], "speed": 2}, "speed: there is no such field (expected "),
        ({"trace": [[-1, "one"]]}, "trace.0.0"),
        ({"trace": [[1, "one"]], "queue_order": "random"}, "queue_order"),
    ],
)
def test_wrong_workloads_name_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        workload(**fields)
    assert message in raised.value.message
