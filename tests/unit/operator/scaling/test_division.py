from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from disagfusion_operator.api.base import STAGES
from disagfusion_operator.scaling.capacity import PoolKey
from disagfusion_operator.scaling.division import Division, divide
from disagfusion_operator.scaling.table import Claim, Seat, served, taken_by
from disagfusion_operator.scaling.view import Key
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.decision import Place

POOLS = tuple(PoolKey((("pool", name),), "nvidia.com/gpu") for name in "abc")


def claim(
    name: str,
    need: float = 0.0,
    *,
    pools: str = "a",
    seconds: Mapping[str, float] | None = None,
    least: int = 1,
    accelerators: int = 1,
    **more: Any,
) -> Claim:
    each = seconds or {"encoder": 1.0, "dit": 6.0, "decoder": 1.0}
    return Claim(
        key=Key("default", name),
        priority=more.pop("priority", 0),
        seats={
            Place(stage, pool): Seat(
                POOLS["abc".index(pool)],
                accelerators,
                1.0 / (each[stage] * ("abc".index(pool) + 1)),
            )
            for stage in STAGES
            for pool in pools
        },
        least=dict.fromkeys(STAGES, least),
        most=more.pop("most", {}),
        need=dict.fromkeys(STAGES, need),
        **more,
    )


def capacity(*counts: int) -> dict[PoolKey, int]:
    return dict(zip(POOLS, counts, strict=False))


def share(division: Division, name: str, pool: int = 0) -> int:
    return division.shares[Key("default", name)][POOLS[pool]]


def test_need_divides_what_minima_leave() -> None:
    found = divide([claim("p", 1.0), claim("q", 0.5)], capacity(12))
    # One of each stage, then the bottleneck's: 6 seconds each.
    assert found.targets[Key("default", "p")][Place("dit", "a")] == 5
    assert found.targets[Key("default", "q")][Place("dit", "a")] == 3
    assert share(found, "p") + share(found, "q") == 12


def test_a_higher_priority_is_served_first() -> None:
    urgent = claim("urgent", 1.0, priority=10)
    found = divide([claim("p", 1.0), urgent], capacity(8))
    assert found.targets[urgent.key][Place("dit", "a")] == 6
    # Nothing is left, not even for the minima of the other.
    assert share(found, "p") == 0
    found = divide([claim("p", 1.0), urgent], capacity(11))
    assert share(found, "p") == 3


def test_minima_come_before_need() -> None:
    found = divide([claim("busy", 10.0), claim("idle", least=2)], capacity(9))
    assert share(found, "idle") == 6
    assert share(found, "busy") == 3


def test_what_nobody_needs_is_kept_where_it_runs_and_else_divided() -> None:
    running = claim("p", held={Place("dit", "a"): 5})
    found = divide([running, claim("q")], capacity(12))
    assert found.targets[running.key][Place("dit", "a")] == 5
    assert share(found, "p") == 7 + 1  # two are left over, one for each
    assert share(found, "q") == 3 + 1


def test_whoever_expands_takes_what_nobody_needs() -> None:
    found = divide([claim("p", 0.1, expands=True), claim("q", 0.1)], capacity(12))
    assert share(found, "p") == 9
    assert share(found, "q") == 3


def test_bounds_hold() -> None:
    bounded = claim("p", 9.0, budget=5)
    assert share(divide([bounded], capacity(20)), "p") == 5
    assert share(divide([claim("p", 9.0, limits={POOLS[0]: 4})], capacity(20)), "p") == 4
    found = divide([claim("p", 9.0, most={"dit": 2}, limits={})], capacity(20))
    assert found.targets[Key("default", "p")][Place("dit", "a")] == 2


def test_a_stage_goes_where_it_is_comparatively_fast() -> None:
    # On b the decoder loses little, the denoising loop much.
    seats = {
        Place(stage, pool): Seat(POOLS["ab".index(pool)], 1, 1.0 / seconds)
        for stage, each in {
            "encoder": {"a": 1.0, "b": 1.2},
            "dit": {"a": 6.0, "b": 30.0},
            "decoder": {"a": 1.0, "b": 1.2},
        }.items()
        for pool, seconds in each.items()
    }
    found = divide([replace(claim("p", 0.5), seats=seats)], capacity(3, 3))
    targets = found.targets[Key("default", "p")]
    assert targets[Place("dit", "a")] == 3
    assert targets[Place("encoder", "b")] >= 1
    assert targets[Place("decoder", "b")] >= 1


def test_a_minimum_goes_elsewhere_so_that_another_finds_room() -> None:
    flexible = claim("a-flexible", pools="ab")
    bound = claim("b-bound", pools="a")
    found = divide([flexible, bound], capacity(3, 3))
    assert share(found, "b-bound") == 3
    assert share(found, "a-flexible", 1) == 3


def test_who_does_little_leaves_the_best_accelerators_to_whoever_needs_them() -> None:
    held = {Place(stage, "a"): 1 for stage in STAGES}
    seconds = {"encoder": 0.1, "dit": 6.0, "decoder": 0.1}
    idle = claim("a-idle", 0.01, pools="ab", seconds=seconds, held=held)
    busy = claim("b-busy", 1.0, pools="ab", seconds=seconds)
    found = divide([idle, busy], capacity(4, 6))
    assert share(found, "b-busy") == 4
    assert share(found, "a-idle", 1) == 3
    # Where nobody is the better for it, it stays.
    calm = replace(busy, need=dict.fromkeys(STAGES, 0.1))
    kept = divide([idle, calm], capacity(4, 6)).targets[idle.key]
    assert {place: count for place, count in kept.items() if count} == held


def test_who_looks_at_cost_leaves_accelerators_for_cheaper_ones_only() -> None:
    seconds = {"encoder": 0.1, "dit": 6.0, "decoder": 0.1}
    busy = claim("b-busy", 1.0, pools="ab", seconds=seconds)

    def idle(b: float, *, expands: bool = False) -> dict[str, int]:
        one = claim("a-idle", 0.01, pools="ab", seconds=seconds, expands=expands)
        seats = {
            place: replace(seat, cost=b if place.pool == "b" else 1.0)
            for place, seat in one.seats.items()
        }
        one = replace(one, seats=seats, held={Place(stage, "a"): 1 for stage in STAGES})
        found = divide([one, busy], capacity(4, 6)).targets[one.key]
        return {
            pool: sum(count for place, count in found.items() if place.pool == pool)
            for pool in "ab"
        }

    # A job takes twice as long on b.
    assert idle(0.4) == {"a": 0, "b": 3}
    assert idle(0.6) == {"a": 3, "b": 0}
    assert idle(0.6, expands=True)["b"] == 3


def test_nobody_of_a_higher_priority_is_served_worse_by_leaving_accelerators() -> None:
    seconds = {"encoder": 0.1, "dit": 6.0, "decoder": 0.1}
    urgent = claim("urgent", 0.66, pools="ab", seconds=seconds, priority=1, most={"dit": 4})
    busy = claim("busy", 1.0, pools="ab", seconds=seconds)
    # With its minima on b it could do 88 %, and the other twice as much as without.
    found = divide([urgent, busy], capacity(7, 6))
    assert served(urgent, found.targets[urgent.key]) >= 1.0


def test_who_leaves_accelerators_alone_already_stays() -> None:
    def among(name: str, need: float, *held: str) -> Claim:
        return replace(
            claim(name, need),
            seats={
                Place(stage, pool): Seat(
                    POOLS["abc".index(pool)], 1, (2.0 if pool == "a" else 1.0) / each
                )
                for stage, each in {"encoder": 0.2, "dit": 12.0, "decoder": 0.2}.items()
                for pool in "abc"
            },
            held={Place(stage, pool): 1 for stage in STAGES for pool in held},
        )

    idle, calm, busy = among("a-idle", 0.01, "a"), among("b-calm", 0.01, "c"), among("c-busy", 1.0)
    found = divide([idle, calm, busy], capacity(4, 6, 3))
    assert share(found, "c-busy") == 4
    # Those of b are no better than what it has.
    assert {place: count for place, count in found.targets[calm.key].items() if count} == calm.held


def test_a_division_stays_until_another_is_clearly_better() -> None:
    first = divide([claim("p", 1.0), claim("q", 1.0)], capacity(12))
    little = [claim("p", 1.1), claim("q", 1.0)]
    assert divide(little, capacity(12), first).shares == first.shares
    much = [claim("p", 1.0), claim("q", 0.2)]
    assert divide(much, capacity(12), first).shares != first.shares
    assert share(divide(much, capacity(12), first), "p") > share(first, "p")


def test_a_division_does_not_go_to_and_fro_with_every_breath_of_the_load() -> None:
    def placed(name: str, need: float, least: int, **seconds: tuple[float, ...]) -> Claim:
        seats = {
            Place(stage, pool): Seat(POOLS["abc".index(pool)], 1, 1.0 / one)
            for pool, each in seconds.items()
            for stage, one in zip(STAGES, each, strict=True)
        }
        return replace(claim(name, need, least=least), seats=seats, most={"dit": 3})

    claims = [
        replace(placed("p", 0.2, 2, b=(3, 15, 16), c=(4, 11, 15)), expands=True),
        replace(placed("q", 1.2, 1, a=(0.2, 7.6, 0.5)), expands=True, most={}),
        placed("r", 0.6, 1, a=(0.9, 14.4, 0.5), b=(3, 64, 2), c=(3, 63, 1.7)),
    ]
    division = None
    found = []
    for breath in (0.07, -0.07) * 5:
        parts = (1.0 + breath, 1.0 - breath, 1.0 + breath)
        now = [
            replace(
                one,
                need={stage: part * need for stage, need in one.need.items()},
                held={} if division is None else division.targets[one.key],
            )
            for one, part in zip(claims, parts, strict=True)
        ]
        division = divide(now, capacity(7, 3, 7), division)
        found.append(division.shares)
    assert all(shares == found[1] for shares in found[2:])


def test_others_that_come_or_another_size_divide_anew() -> None:
    first = divide([claim("p", 1.0)], capacity(12))
    assert share(first, "p") == 12
    both = divide([claim("p", 1.0), claim("q", 1.0)], capacity(12), first)
    assert share(both, "q") == 6
    assert share(divide([claim("p", 1.0)], capacity(8), first), "p") == 8


def test_shares_are_the_same_whatever_the_order() -> None:
    claims = [
        claim(name, need, pools="abc") for name, need in zip("pqr", (0.4, 0.9, 0.1), strict=True)
    ]
    assert divide(claims, capacity(5, 4, 7)) == divide(claims[::-1], capacity(5, 4, 7))


needs = st.floats(0.0, 3.0).map(lambda value: round(value, 2))


@st.composite
def claims_of_some(draw: st.DrawFn) -> list[Claim]:
    found = []
    for name in "pqrst"[: draw(st.integers(1, 5))]:
        pools = draw(st.sampled_from(["a", "b", "ab", "abc", "bc"]))
        places = [Place(stage, pool) for stage in STAGES for pool in pools]
        found.append(
            claim(
                name,
                draw(needs),
                pools=pools,
                least=draw(st.integers(0, 2)),
                accelerators=draw(st.sampled_from([1, 1, 2, 4])),
                priority=draw(st.integers(0, 1)),
                budget=draw(st.none() | st.integers(0, 20)),
                expands=draw(st.booleans()),
                held=draw(st.dictionaries(st.sampled_from(places), st.integers(0, 4))),
            )
        )
    return found


counts = st.tuples(*[st.integers(0, 16)] * 3)


@given(claims_of_some(), counts)
def test_no_pool_is_given_twice_and_nobody_gets_more_than_allowed(
    claims: list[Claim], sizes: tuple[int, int, int]
) -> None:
    found = divide(claims, capacity(*sizes))
    for pool, size in capacity(*sizes).items():
        assert sum(shares.get(pool, 0) for shares in found.shares.values()) <= size
    for one in claims:
        targets = found.targets[one.key]
        taken = taken_by(one, targets)
        assert all(count >= 0 for count in targets.values())
        assert all(taken[pool] <= found.shares[one.key][pool] for pool in taken)
        assert one.budget is None or sum(taken.values()) <= one.budget


@given(claims_of_some(), counts)
def test_divisions_come_to_rest(claims: list[Claim], sizes: tuple[int, int, int]) -> None:
    division = divide(claims, capacity(*sizes))
    for _ in range(4):
        before = division
        claims = [replace(one, held=before.targets[one.key]) for one in claims]
        division = divide(claims, capacity(*sizes), before)
    assert division.shares == before.shares


@given(st.lists(needs, min_size=2, max_size=4), st.integers(0, 40), st.floats(0.1, 3.0))
def test_who_needs_more_gets_no_less(loads: list[float], size: int, more: float) -> None:
    claims = [claim(name, need) for name, need in zip("pqrs", loads, strict=False)]
    before = divide(claims, capacity(size))
    claims[0] = claim("p", loads[0] + more)
    after = divide(claims, capacity(size))
    assert served(claim("p", 1.0), after.targets[claims[0].key]) >= served(
        claim("p", 1.0), before.targets[claims[0].key]
    )


@given(st.lists(needs, min_size=1, max_size=4), st.integers(3, 40))
def test_minima_are_kept_where_there_is_room_for_all(loads: list[float], size: int) -> None:
    claims = [claim(name, need) for name, need in zip("pqrs", loads, strict=False)]
    if size < 3 * len(claims):
        return
    found = divide(claims, capacity(size))
    for one in claims:
        assert all(count >= 1 for count in found.targets[one.key].values())


@given(st.lists(st.floats(0.05, 3.0), min_size=2, max_size=4), st.integers(6, 40))
def test_nobody_is_served_worse_than_he_could_be_by_taking_from_who_is_better_off(
    loads: list[float], size: int
) -> None:
    claims = [claim(name, round(need, 2)) for name, need in zip("pqrs", loads, strict=False)]
    if size < 3 * len(claims):
        return
    found = divide(claims, capacity(size))
    parts = {one.key: served(one, found.targets[one.key]) for one in claims}
    worst = min(claims, key=lambda one: parts[one.key])
    if parts[worst.key] >= 1.0:
        return
    for other in claims:
        targets = dict(found.targets[other.key])
        spare = [place for place, count in targets.items() if count > 1]
        for place in spare:
            less = served(other, {**targets, place: targets[place] - 1})
            stage = min(
                STAGES,
                key=lambda name: (
                    found.targets[worst.key][Place(name, "a")] * worst.seats[Place(name, "a")].speed
                ),
            )
            mine = dict(found.targets[worst.key])
            mine[Place(stage, "a")] += 1
            gained = served(worst, mine)
            # Whoever gave one away would be the worst then.
            assert other is worst or min(less, gained) <= parts[worst.key] + 1e-9


def test_served_is_infinite_where_nothing_is_needed() -> None:
    assert math.isinf(served(claim("p"), {}))
    assert served(claim("p", 1.0), {}) == 0.0
