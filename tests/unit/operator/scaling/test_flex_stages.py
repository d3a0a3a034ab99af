"""Which stage each of the pods that change theirs should have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from disagfusion_operator.scaling.flex import apportioned, arranged, choose, exchange, unchanged
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.decision import Place

ENCODER, DIT, DECODER = (Place(stage, "a") for stage in ("encoder", "dit", "decoder"))
COUNTS = st.fixed_dictionaries(dict.fromkeys((ENCODER, DIT, DECODER), st.integers(0, 6)))


@given(st.integers(0, 12), COUNTS, COUNTS)
def test_what_is_asked_for_is_divided_whole_and_pods_stay_what_they_are(
    total: int, live: Mapping[Place, int], wanted: Mapping[Place, int]
) -> None:
    found = apportioned(total, live, wanted)
    assert sum(found.values()) == total
    more = total >= sum(live.values())
    assert all(found[one] >= live[one] if more else found[one] <= live[one] for one in live)
    if sum(wanted.values()) == total and all(wanted[one] >= live[one] for one in live):
        assert found == wanted


@given(st.integers(0, 12), COUNTS, COUNTS)
def test_where_nobody_decides_pods_keep_their_stage_beyond_the_minima(
    total: int, live: Mapping[Place, int], least: Mapping[Place, int]
) -> None:
    found = arranged(total, live, least)
    assert sum(found.values()) == max(total, sum(least.values()))
    assert all(found[one] >= least[one] for one in live)
    assert arranged(total, found, least) == found
    if sum(live.values()) == total and all(live[one] >= least[one] for one in live):
        assert found == live


@given(COUNTS, COUNTS)
def test_where_pods_cannot_change_as_many_as_are_wanted_are_what_they_are(
    asked: Mapping[Place, int], wanted: Mapping[Place, int]
) -> None:
    found = unchanged(asked, wanted)
    assert sum(found.values()) == sum(wanted.values())
    fewer = sum(wanted.values()) <= sum(asked.values())
    assert all(found[one] <= asked[one] if fewer else found[one] >= asked[one] for one in asked)
    assert all(found[one] >= min(asked[one], wanted[one]) for one in asked)
    # What comes in addition is what is wanted.
    assert all(found[one] <= max(asked[one], wanted[one]) for one in asked)


@given(COUNTS, COUNTS, COUNTS)
def test_an_exchange_takes_from_who_has_too_many_for_who_has_too_few(
    live: Mapping[Place, int], keep: Mapping[Place, int], wanted: Mapping[Place, int]
) -> None:
    spare, targets = exchange(live, keep, wanted)
    got = Counter(targets)
    assert all(live[one] - spare[one] >= min(live[one], keep[one]) for one in live)
    assert all(live[one] + got[one] <= max(live[one], wanted[one]) for one in live)
    lacking = sum(max(0, wanted[one] - live[one]) for one in live)
    assert len(targets) == min(sum(spare.values()), lacking)


def test_a_stage_without_any_replica_is_first() -> None:
    live, wanted = {ENCODER: 0, DIT: 1, DECODER: 7}, {ENCODER: 1, DIT: 6, DECODER: 1}
    spare, targets = exchange(live, wanted, wanted)
    assert spare == {ENCODER: 0, DIT: 0, DECODER: 6}
    assert targets == [ENCODER, *[DIT] * 5]
    assert choose([(DECODER, "x"), (DIT, "y"), (DECODER, "z")], {DECODER: 1}) == ["x"]
