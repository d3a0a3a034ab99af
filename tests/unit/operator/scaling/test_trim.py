from __future__ import annotations

from disagfusion_operator.api.base import STAGES
from disagfusion_operator.scaling.trim import trimmed, with_minima
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.decision import Place

from .test_division import POOLS, claim

ENCODER, DIT, DECODER = (Place(stage, "a") for stage in STAGES)
FULL = {ENCODER: 2, DIT: 6, DECODER: 2}


def test_nothing_changes_within_bounds() -> None:
    assert trimmed(claim("p"), FULL, {POOLS[0]: 10}, {}) == FULL


def test_those_go_that_are_farthest_above_their_target() -> None:
    found = trimmed(claim("p"), FULL, {POOLS[0]: 8}, {ENCODER: 1, DIT: 6, DECODER: 1})
    assert found == {ENCODER: 1, DIT: 6, DECODER: 1}


def test_a_maximum_is_kept_even_against_a_target() -> None:
    found = trimmed(claim("p", most={"dit": 4}), FULL, {}, {DIT: 6})
    assert found == {ENCODER: 2, DIT: 4, DECODER: 2}


def test_minima_go_last() -> None:
    found = trimmed(claim("p", budget=3), FULL, {}, {DIT: 3})
    assert found == {ENCODER: 1, DIT: 1, DECODER: 1}


def test_what_others_scale_stays_and_counts() -> None:
    found = trimmed(claim("p", budget=8), FULL, {}, {}, (DIT,))
    assert found == {ENCODER: 1, DIT: 6, DECODER: 1}


def test_what_others_scale_takes_nobodys_minimum() -> None:
    for bounds, shares in (({"budget": 4}, {}), ({}, {POOLS[0]: 4})):
        found = trimmed(claim("p", **bounds), FULL, shares, {}, (DIT,))
        assert found == {ENCODER: 1, DIT: 6, DECODER: 1}


def test_a_minimum_takes_room_from_another_stage() -> None:
    found = with_minima(
        claim("p"),
        {ENCODER: 1, DIT: 3, DECODER: 0},
        {POOLS[0]: 4},
        {ENCODER: 1, DIT: 2, DECODER: 1},
    )
    assert found == {ENCODER: 1, DIT: 2, DECODER: 1}


def test_a_minimum_without_room_takes_none_from_another_minimum() -> None:
    desired = {ENCODER: 1, DIT: 1, DECODER: 0}
    assert with_minima(claim("p"), desired, {POOLS[0]: 2}, {DECODER: 1}) == desired


counts = st.fixed_dictionaries({place: st.integers(0, 8) for place in (ENCODER, DIT, DECODER)})


@given(counts, counts, st.integers(0, 30), st.integers(0, 30), st.integers(0, 9))
def test_bounds_hold_and_nothing_grows(
    desired: dict[Place, int], targets: dict[Place, int], share: int, budget: int, most: int
) -> None:
    one = claim("p", budget=budget, most={"dit": most}, accelerators=2)
    found = trimmed(one, desired, {POOLS[0]: share}, targets)
    assert 2 * sum(found.values()) <= max(0, min(share, budget))
    assert found[DIT] <= most
    assert all(found[place] <= count for place, count in desired.items())


@given(counts, counts, st.integers(0, 30), st.integers(0, 30))
def test_minima_never_break_bounds_nor_other_minima(
    desired: dict[Place, int], targets: dict[Place, int], share: int, budget: int
) -> None:
    one = claim("p", budget=budget)
    within = trimmed(one, desired, {POOLS[0]: share}, targets)
    found = with_minima(one, within, {POOLS[0]: share}, targets)
    assert sum(found.values()) <= min(share, budget)
    for place in (ENCODER, DIT, DECODER):
        assert min(1, found[place]) >= min(1, within[place])
