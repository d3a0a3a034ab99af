"""The steps toward a plan: none empties a stage, and each has room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from disagfusion.scheduling.balancer.fleet import Room, places
from disagfusion.scheduling.balancer.forecast import History
from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.state import State
from disagfusion.scheduling.balancer.steps import toward
from disagfusion.scheduling.behavior import Behavior, Direction
from disagfusion.scheduling.decision import Move, Place, Reason
from disagfusion.scheduling.document import validate
from disagfusion.scheduling.observation import (
    Fresh,
    JobGroup,
    Missing,
    Observation,
    Replicas,
    StageLoad,
)
from disagfusion.scheduling.predictors import ProfilePredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape

STAGES = ("encoder", "dit", "decoder")
POOLS = ("p", "q", "r")
ONE = Shape()


def profile_of(
    accelerators: Mapping[tuple[str, str], int],
    minimum: Mapping[str, int],
    maximum: Mapping[str, int | None],
    each: int = 12,
) -> Profile:
    pools = sorted({pool for _, pool in accelerators})
    fields: dict[str, Any] = {
        "pools": {pool: {"accelerators": each, "cost_per_hour": i} for i, pool in enumerate(pools)},
        "stages": {
            stage: {
                "min": minimum[stage],
                "max": maximum[stage],
                "pools": {
                    pool: {"seconds": 1 + 3 * i, "accelerators": accelerators[stage, pool]}
                    for pool in pools
                },
            }
            for i, stage in enumerate(STAGES)
        },
    }
    return validate(Profile, fields, name="p")


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    pools = POOLS[: draw(st.integers(2, 3))]
    accelerators = {
        (stage, pool): draw(st.sampled_from([1, 1, 1, 2, 3])) for stage in STAGES for pool in pools
    }
    minimum = {stage: draw(st.integers(0, 3)) for stage in STAGES}
    more = {stage: draw(st.sampled_from([None, None, 0, 2])) for stage in STAGES}
    maximum = {s: None if by is None else max(1, minimum[s] + by) for s, by in more.items()}
    return profile_of(accelerators, minimum, maximum)


def fleets(profile: Profile, largest: int = 3) -> st.SearchStrategy[dict[Place, Replicas]]:
    counts = st.builds(
        Replicas,
        ready=st.integers(0, largest),
        starting=st.sampled_from([0, 0, 0, 1, 2]),
        draining=st.sampled_from([0, 0, 0, 1]),
    )
    return st.fixed_dictionaries({place: counts for place in places(profile)})


def observed(
    profile: Profile, fleet: Mapping[Place, Replicas], usable: int = 12, **signals: Any
) -> Observation:
    fields: dict[str, Any] = {"jobs": Missing(), "arrived": Missing(), **signals}
    return Observation(
        replicas={
            stage: {pool: fleet[Place(stage, pool)] for pool in what.pools}
            for stage, what in profile.stages.items()
        },
        loads={stage: StageLoad(busy=Fresh(0.1, 0.0), reporting=99) for stage in STAGES},
        accelerators=dict.fromkeys(profile.pools, usable),
        **fields,
    )


def taken(profile: Profile, place: Place) -> int:
    return profile.stages[place.stage].pools[place.pool].accelerators


def check_steps(
    profile: Profile, fleet: Mapping[Place, Replicas], budget: int, moves: tuple[Move, ...]
) -> None:
    """See whether moves leave enough replicas, and have room at every moment."""
    leaving = dict.fromkeys(fleet, 0)
    cancelled = dict.fromkeys(fleet, 0)
    coming = dict.fromkeys(fleet, 0)
    for move in moves:
        if move.source is not None:
            (cancelled if move.cancel else leaving)[move.source] += move.count
        if move.target is not None:
            coming[move.target] += move.count
    for place, count in fleet.items():
        assert leaving[place] <= count.ready
        assert cancelled[place] <= count.starting
    for stage, what in profile.stages.items():
        here = [place for place in fleet if place.stage == stage]
        ready = sum(fleet[place].ready for place in here)
        committed = sum(fleet[place].committed for place in here)
        gone = sum(leaving[place] for place in here)
        net = sum(coming[p] - leaving[p] - cancelled[p] for p in here)
        assert gone == 0 or ready - gone >= max(1, what.min)
        assert net >= 0 or committed + net >= max(1, what.min)
        assert what.max is None or net <= 0 or committed + net <= what.max
    used = sum(taken(profile, place) * count.held for place, count in fleet.items())
    in_place = {pool: 0 for pool in profile.pools}
    for move in moves:
        if move.source and move.target and move.source.pool == move.target.pool:
            assert taken(profile, move.source) == taken(profile, move.target)
            in_place[move.source.pool] += move.count * taken(profile, move.target)
    freed = {pool: 0 for pool in profile.pools}
    needed = {pool: 0 for pool in profile.pools}
    for place in fleet:
        freed[place.pool] += taken(profile, place) * (leaving[place] + cancelled[place])
        needed[place.pool] += taken(profile, place) * coming[place]
    total = sum(needed.values()) - sum(freed.values())
    assert total <= max(0, budget - used)
    for pool, where in profile.pools.items():
        held = sum(
            taken(profile, place) * count.held
            for place, count in fleet.items()
            if place.pool == pool
        )
        # Whoever starts here waits at most for those that stop here.
        assert needed[pool] - freed[pool] <= max(0, where.accelerators - held)


@given(data=st.data(), profile=profiles(), spare=st.sampled_from([-3, 0, 0, 0, 1, 4]))
def test_no_step_empties_a_stage_and_all_have_room(
    data: st.DataObject, profile: Profile, spare: int
) -> None:
    fleet = data.draw(fleets(profile))
    wanted = {place: data.draw(st.integers(0, 5)) for place in fleet}
    # Mostly the whole budget is in use.
    budget = spare + sum(taken(profile, place) * count.held for place, count in fleet.items())
    room = Room(profile, max(1, budget), observed(profile, fleet), frozenset())
    moves = toward(room, profile, wanted)
    check_steps(profile, fleet, max(1, budget), moves)
    if not any(move.target for move in moves):
        # What stops alone is too much; nobody else takes its place.
        for stage in STAGES:
            here = [place for place in fleet if place.stage == stage]
            gone = sum(m.count for m in moves if m.source in here and not m.cancel)
            enough = sum(wanted[place] for place in here)
            assert not gone or sum(fleet[place].ready for place in here) - gone >= enough


@given(data=st.data(), profile=profiles(), extra=st.integers(0, 3))
def test_the_steps_lead_there_if_there_is_room_on_the_way(
    data: st.DataObject, profile: Profile, extra: int
) -> None:
    free = profile.model_copy(
        update={
            "stages": {s: w.model_copy(update={"max": None}) for s, w in profile.stages.items()}
        }
    )
    counts = {place: data.draw(st.integers(0, 2)) for place in places(free)}
    wanted = {place: data.draw(st.integers(0, 2)) for place in counts}
    for stage, what in free.stages.items():
        for fleet in (counts, wanted):
            have = sum(n for place, n in fleet.items() if place.stage == stage)
            fleet[Place(stage, "p")] += max(0, max(1, what.min) - have)
    roomy = free.model_copy(
        update={
            "pools": {p: w.model_copy(update={"accelerators": 99}) for p, w in free.pools.items()}
        }
    )
    most = max(sum(taken(roomy, p) * n for p, n in one.items()) for one in (counts, wanted))
    budget = most + 3 + extra
    for _ in range(60):
        fleet = {place: Replicas(count) for place, count in counts.items()}
        room = Room(roomy, budget, observed(roomy, fleet, 99), frozenset())
        moves = toward(room, roomy, wanted)
        check_steps(roomy, fleet, budget, moves)
        if not moves:
            break
        for move in moves:
            for place, by in ((move.source, -move.count), (move.target, move.count)):
                if place is not None:
                    counts[place] += by
    assert counts == wanted


AT_ONCE = Behavior(Direction(0.0, ()), Direction(0.0, ()))


@settings(max_examples=60)
@given(
    data=st.data(),
    profile=profiles(),
    rule=st.sampled_from(["demand", "fallback", "budget"]),
    spare=st.sampled_from([0, 0, 0, 2]),
    jobs=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=3),
    arrivals=st.integers(0, 20),
)
def test_no_decision_empties_a_stage_with_a_full_budget(
    data: st.DataObject,
    profile: Profile,
    rule: Literal["demand", "fallback", "budget"],
    spare: int,
    jobs: list[tuple[int, int]],
    arrivals: int,
) -> None:
    fleet = data.draw(fleets(profile))
    budget = spare + sum(taken(profile, place) * count.held for place, count in fleet.items())
    budget = max(3, budget)
    balancer = Hybrid(
        profile,
        ProfilePredictor(profile),
        lambda place: 30.0,
        BalancerSettings(
            sizing="demand" if rule == "demand" else "budget",
            behavior=AT_ONCE,
            fallback="ratio",
            fallback_after=0.0,
        ),
        budget=budget,
        fallback={place: data.draw(st.integers(0, 4)) for place in fleet},
    )
    signals: dict[str, Any] = {}
    if rule != "fallback":
        groups = tuple(JobGroup(stage, ONE, count, 1.0) for stage, count in jobs)
        signals = {"jobs": Fresh(groups, 10.0), "arrived": Fresh({ONE: arrivals}, 10.0)}
    state = State(history=History(since=-1000.0))
    _, decision = balancer.decide(state, observed(profile, fleet, **signals), 10.0)
    check_steps(profile, fleet, budget, decision.moves)


def test_an_outage_moves_one_stage_after_the_other_to_the_fallback() -> None:
    """A fallback on the other pool, the whole budget in use: nobody works on neither meanwhile."""
    alike = {(stage, pool): 1 for stage in STAGES for pool in "pq"}
    profile = profile_of(alike, dict.fromkeys(STAGES, 1), dict.fromkeys(STAGES, None), each=4)
    wanted = {Place(stage, "q"): 1 for stage in STAGES}
    balancer = Hybrid(
        profile,
        ProfilePredictor(profile),
        lambda place: 5.0,
        BalancerSettings(fallback="ratio", fallback_after=0.0),
        budget=4,
        fallback=wanted,
    )
    counts = {place: 0 for place in places(profile)}
    counts |= {Place("encoder", "p"): 1, Place("dit", "p"): 2, Place("decoder", "p"): 1}
    state, now, reasons = balancer.initial(), 0.0, set()
    for _ in range(12):
        now += 10.0
        fleet = {place: Replicas(count) for place, count in counts.items()}
        state, decision = balancer.decide(state, observed(profile, fleet, 4), now)
        check_steps(profile, fleet, 4, decision.moves)
        reasons.add(decision.reason)
        for move in decision.moves:
            for place, by in ((move.source, -move.count), (move.target, move.count)):
                if place is not None:
                    counts[place] += by
    assert {place: count for place, count in counts.items() if count} == wanted
    assert Reason.FALLBACK in reasons
