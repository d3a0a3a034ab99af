from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.balancer.outlook import Change, Item, Outlook, Prospect


def outlook(seconds: list[float], replicas: list[int], items: list[Item], unit: int = 1) -> Outlook:
    return Outlook(
        seconds=[{0: [one]} for one in seconds],
        free={(stage, 0): [0.0] * count for stage, count in enumerate(replicas)},
        items=items,
        unit=unit,
    )


def waiting(count: int, stage: int = 0) -> list[Item]:
    return [Item(stage, 0, 0.0, 0.0)] * count


def tandem(seconds: list[float], replicas: list[int], jobs: int) -> list[float]:
    """When each of some equal jobs ends, by time slots instead of a heap."""
    ready = [0.0] * jobs
    for one, count in zip(seconds, replicas, strict=True):
        lines: list[list[float]] = [[] for _ in range(count)]
        ends = []
        for at in sorted(ready):
            line = min(lines, key=lambda line: line[-1] if line else 0.0)
            ends.append(max(at, line[-1] if line else 0.0) + one)
            line.append(ends[-1])
        ready = ends
    return ready


@given(
    seconds=st.lists(st.floats(0.5, 20), min_size=1, max_size=4),
    data=st.data(),
    jobs=st.integers(1, 25),
)
def test_without_changes_it_is_a_tandem_of_queues(
    seconds: list[float], data: st.DataObject, jobs: int
) -> None:
    replicas = data.draw(st.lists(st.integers(1, 4), min_size=len(seconds), max_size=len(seconds)))
    found = outlook(seconds, replicas, waiting(jobs)).prospect()
    ends = sorted(tandem(seconds, replicas, jobs))
    assert found.last == pytest.approx(ends[-1])
    assert found.mean == pytest.approx(sum(ends) / jobs)
    assert found.p95 == pytest.approx(ends[max(0, math.ceil(0.95 * jobs) - 1)])


def test_nothing_to_do() -> None:
    assert outlook([1.0], [1], []).prospect() == Prospect(0.0, 0.0, 0.0)


def test_a_stage_without_replicas_never_ends() -> None:
    assert math.isinf(outlook([1.0, 1.0], [1, 0], waiting(1)).prospect().last)


def test_age_counts() -> None:
    looking = outlook([2.0], [1], [Item(0, 0, 0.0, 30.0), Item(0, 0, 5.0, -5.0)])
    assert looking.prospect() == Prospect(last=7.0, mean=(32 + 2) / 2, p95=32.0)


def test_a_replica_changes_its_stage_after_its_job() -> None:
    # The second stage has one replica and all the work; two of the first stage's are busy.
    looking = Outlook(
        seconds=[{0: [4.0]}, {0: [10.0]}],
        free={(0, 0): [3.0, 7.0], (1, 0): [0.0]},
        items=waiting(4, stage=1),
    )
    assert looking.prospect().last == 40.0
    forward = Change(0.0, (0, 0), (1, 0), 1, 2.0)
    # Free at 3, there at 5: ends at 15, 25; the other at 10, 20.
    assert looking.prospect([forward]).last == 25.0
    later = Change(6.0, (0, 0), (1, 0), 1, 2.0)
    # Idle since 3, leaves at 6, there at 8: ends at 18, 28.
    assert looking.prospect([later]).last == 28.0


def test_a_replica_goes_back_to_an_earlier_stage() -> None:
    looking = Outlook(
        seconds=[{0: [10.0]}, {0: [1.0]}],
        free={(0, 0): [0.0], (1, 0): [5.0, 9.0]},
        items=waiting(4),
    )
    assert looking.prospect().last == 41.0
    # Free at 5, there at 7: 17, 27; the first at 10, 20; and a second more.
    assert looking.prospect([Change(0.0, (1, 0), (0, 0), 1, 2.0)]).last == 28.0


def test_a_replica_that_loads_while_it_finishes_its_job() -> None:
    looking = Outlook(
        seconds=[{0: [4.0]}, {0: [10.0]}],
        free={(0, 0): [3.0, 7.0], (1, 0): [0.0]},
        items=waiting(4, stage=1),
    )
    assert looking.prospect().last == 40.0

    def forward(delay: float, seconds: float) -> Change:
        return Change(delay, (0, 0), (1, 0), 1, seconds, ahead=True)

    # Loaded at 2, free at 3: ends at 13, 23; the other at 10, 20.
    assert looking.arrives(forward(0.0, 2.0)) == 3.0
    assert looking.prospect([forward(0.0, 2.0)]).last == 23.0
    # Free at 3, loaded at 9: ends at 19, 29; the other at 10, 20.
    assert looking.arrives(forward(0.0, 9.0)) == 9.0
    assert looking.prospect([forward(0.0, 9.0)]).last == 29.0
    # Idle since 3, leaves at 6, loaded at 8.
    assert looking.arrives(forward(6.0, 2.0)) == 8.0
    assert looking.prospect([forward(6.0, 2.0)]).last == 28.0


def test_a_replica_that_loads_goes_back_to_an_earlier_stage() -> None:
    looking = Outlook(
        seconds=[{0: [10.0]}, {0: [1.0]}],
        free={(0, 0): [0.0], (1, 0): [5.0, 9.0]},
        items=waiting(4),
    )
    # Free at 5: 15, 25; the first at 10, 20; and a second more.
    assert looking.prospect([Change(0.0, (1, 0), (0, 0), 1, 2.0, ahead=True)]).last == 26.0


def test_new_and_leaving_replicas() -> None:
    looking = outlook([10.0], [2], waiting(4))
    assert looking.prospect([Change(0.0, None, (0, 0), 1, 5.0)]).last == 20.0
    assert looking.prospect([Change(0.0, (0, 0), None, 1, 0.0)]).last == 40.0
    assert looking.prospect([Change(10.0, (0, 0), None, 1, 0.0)]).last == 30.0


def test_each_job_goes_where_it_would_be_done_first() -> None:
    looking = Outlook(
        seconds=[{0: [10.0], 1: [4.0]}],
        free={(0, 0): [0.0], (0, 1): [0.0]},
        items=waiting(3),
    )
    # 4 and 8 on the fast one, 10 on the slow one.
    assert looking.prospect() == Prospect(last=10.0, mean=22 / 3, p95=10.0)


def test_what_does_not_fit_goes_elsewhere() -> None:
    looking = Outlook(
        seconds=[{0: [math.inf], 1: [4.0]}],
        free={(0, 0): [0.0], (0, 1): [0.0]},
        items=waiting(2),
    )
    assert looking.prospect().last == 8.0


@pytest.mark.parametrize("replicas", [(21, 779), (300, 500)])
def test_many_replicas_are_taken_together(replicas: tuple[int, int]) -> None:
    jobs, unit = 4000, 16
    whole = outlook([0.4, 15.0], list(replicas), waiting(jobs)).prospect()
    free = {}
    stretch = {}
    for stage, count in enumerate(replicas):
        units = math.ceil(count / unit)
        free[stage, 0] = [0.0] * units
        stretch[stage, 0] = units / count
    together = Outlook(
        seconds=[{0: [0.4]}, {0: [15.0]}],
        free=free,
        items=[Item(0, 0, 0.0, 0.0, unit)] * (jobs // unit),
        stretch=stretch,
        unit=unit,
    ).prospect()
    assert together.last == pytest.approx(whole.last, rel=0.1)
    assert together.mean == pytest.approx(whole.mean, rel=0.1)


@given(
    counts=st.tuples(st.integers(1, 4), st.integers(2, 6), st.integers(1, 4)),
    jobs=st.integers(1, 30),
    delay=st.floats(0, 60),
    ends=st.sampled_from(list(itertools.permutations(range(3), 2))),
)
def test_a_change_that_comes_too_late_changes_nothing(
    counts: tuple[int, int, int], jobs: int, delay: float, ends: tuple[int, int]
) -> None:
    looking = outlook([2.0, 9.0, 3.0], list(counts), waiting(jobs))
    base = looking.prospect()
    change = Change(base.last + delay, (ends[0], 0), (ends[1], 0), 1, 1.0)
    assert looking.prospect([change]) == base
