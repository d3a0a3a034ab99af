"""The planner against trying everything."""

from __future__ import annotations

from random import Random

import pytest
from planningkit.brute import Everything, difference
from planningkit.cases import Case, random_case

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.planner import plan

_BATCHES = 6
_CASES = 40


@pytest.mark.parametrize("batch", range(_BATCHES))
def test_no_plan_is_better(batch: int) -> None:
    for number in range(batch * _CASES, (batch + 1) * _CASES):
        case = random_case(Random(number))
        profile, demand = case.parsed()
        try:
            found = plan(profile, demand, case.budget, case.current)
        except FailedPreconditionError:
            found = None
        assert difference(case, found) is None, f"case {number}\n{case}"


def test_the_cases_are_of_all_kinds() -> None:
    cases = [random_case(Random(number)) for number in range(_BATCHES * _CASES)]
    everything = [Everything(case) for case in cases[::4]]
    assert sum(not one.tries for one in everything) > 10
    assert sum(one.best is not None and one.best.moves > 0 for one in everything) > 10
    assert sum(one.asked is not None for one in everything) > 10
    assert sum(_ties(one) for one in everything) > 5
    assert sum(len(case.profile["pools"]) == 1 for case in cases) > 20
    assert sum(_wide(case) for case in cases) > 20


def _ties(everything: Everything) -> bool:
    best = everything.best
    return best is not None and sum(one.rank == best.rank for one in everything.tries) > 1


def _wide(case: Case) -> bool:
    places = (
        place for stage in case.profile["stages"].values() for place in stage["pools"].values()
    )
    return any(place.get("accelerators", 1) > 1 for place in places)


def test_a_worse_plan_is_seen() -> None:
    """With fewer accelerators the planner's answer is worse, and the comparison says so."""
    seen = 0
    for number in range(40):
        case = random_case(Random(number))
        profile, demand = case.parsed()
        best = Everything(case).best
        if best is None or best.accelerators < 2 or best.enough == 0:
            continue
        try:
            worse = plan(profile, demand, best.accelerators - 1, case.current)
        except FailedPreconditionError:
            worse = None
        seen += difference(case, worse) is not None
    assert seen > 10
