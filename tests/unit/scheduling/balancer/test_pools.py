"""The balancer on pools of unequal accelerators."""

from __future__ import annotations

from typing import Any

import pytest
from balancerkit.desk import ONE, STAGES
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.balancer.candidates import Candidate, Candidates, Leg
from disagfusion.scheduling.balancer.fleet import Room
from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.outlook import Outlook
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.targets import Targets
from disagfusion.scheduling.balancer.view import View
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.document import validate
from disagfusion.scheduling.observation import (
    Fresh,
    JobGroup,
    Observation,
    Replicas,
    StageLoad,
)
from disagfusion.scheduling.predictors import ProfilePredictor
from disagfusion.scheduling.profile import Profile

# `old` does everything slowly; `new` is fast at denoising and no better at the rest.
SECONDS = {
    "old": {"encoder": 1.0, "dit": 40.0, "decoder": 8.0},
    "new": {"encoder": 1.0, "dit": 8.0, "decoder": 8.0},
}


def unequal(old: int = 4, new: int = 4, **stages: dict[str, Any]) -> Profile:
    fields = {
        stage: {
            "pools": {pool: {"seconds": seconds[stage]} for pool, seconds in SECONDS.items()},
            **stages.get(stage, {}),
        }
        for stage in STAGES
    }
    pools = {"old": {"accelerators": old}, "new": {"accelerators": new}}
    return validate(Profile, {"pools": pools, "stages": fields}, name="p")


def place(stage: str, pool: str) -> Place:
    return Place(stage, pool)


class TwoPools:
    """A balancer, its fleet by `stage/pool`, and jobs."""

    def __init__(
        self,
        replicas: dict[str, Replicas | int],
        profile: Profile | None = None,
        budget: int | None = None,
        **settings: Any,
    ) -> None:
        self.profile = profile or unequal()
        self.usable = {name: pool.accelerators for name, pool in self.profile.pools.items()}
        self.budget = sum(self.usable.values()) if budget is None else budget
        self.loads = {"old": 20.0, "new": 5.0}
        self.balancer = Hybrid(
            self.profile,
            ProfilePredictor(self.profile),
            lambda where: self.loads[where.pool],
            BalancerSettings(**settings),
            budget=budget,
        )
        self.replicas = {
            stage: {
                pool: count if isinstance(count, Replicas) else Replicas(count)
                for pool in self.profile.stages[stage].pools
                for count in (replicas.get(f"{stage}/{pool}", 0),)
            }
            for stage in STAGES
        }
        self.jobs: list[JobGroup] = []
        self.arrived: dict[Any, int] = {}
        self.state = self.balancer.initial()
        self.now = 0.0

    def wait_for(self, stage: int, count: int, age: float = 0.0) -> None:
        self.jobs += [JobGroup(stage, ONE, 1, age)] * count

    def observation(self) -> Observation:
        return Observation(
            self.replicas,
            Fresh(tuple(self.jobs), self.now),
            Fresh(self.arrived, self.now),
            {stage: StageLoad() for stage in STAGES},
            self.usable,
        )

    def decide(self, seconds: float = 10.0) -> Decision:
        self.now += seconds
        self.state, decision = self.balancer.decide(self.state, self.observation(), self.now)
        return decision

    def room(self) -> Room:
        return Room(self.profile, self.budget, self.observation(), frozenset())

    def candidates(self, unit: int = 1) -> Candidates:
        return Candidates(View.of(self.profile), self.room(), unit)


def test_a_free_accelerator_of_a_faster_pool_is_better_than_one_of_a_slower() -> None:
    fleet = TwoPools({"encoder/old": 1, "dit/old": 2, "decoder/old": 1}, unequal(old=5), budget=5)
    fleet.wait_for(1, 30)
    starts = [move for move in fleet.decide().moves if move.source is None]
    # On either pool there is one accelerator that the budget allows.
    assert starts == [Move(None, place("dit", "new"))]


def test_a_stop_on_one_pool_pays_for_a_start_on_another() -> None:
    # The budget is used up; the fast pool has accelerators that nobody uses.
    fleet = TwoPools({"encoder/old": 1, "dit/old": 2, "decoder/old": 1}, budget=4)
    fleet.wait_for(1, 30)
    decision = fleet.decide()
    assert decision.reason is Reason.REBALANCE
    assert [(move.source, move.target) for move in decision.moves] == [
        (place("dit", "old"), place("dit", "new"))
    ]
    assert "from dit on old to dit on new" in decision.message


def test_what_terminates_still_takes_its_accelerator() -> None:
    replicas = {
        "encoder/old": 1, "dit/old": 2, "decoder/old": 1,
        "dit/new": Replicas(draining=3), "decoder/new": Replicas(draining=1),
    }  # fmt: skip
    fleet = TwoPools(replicas, budget=8)
    fleet.wait_for(1, 30)
    # The fast pool will be free soon, and is not yet.
    assert all(move.target is None or move.target.pool == "old" for move in fleet.decide().moves)


def test_two_opposite_changes_where_each_alone_does_harm() -> None:
    # Decoders on the pool that denoises five times as fast, DiTs on the other.
    fleet = TwoPools({"encoder/old": 1, "dit/old": 3, "dit/new": 1, "decoder/new": 3})
    for _ in range(40):
        fleet.wait_for(1, 1, age=30.0)
    fleet.wait_for(2, 20)
    moves = fleet.decide().moves
    pairs = {(move.source, move.target) for move in moves}
    assert (place("decoder", "new"), place("dit", "new")) in pairs
    assert (place("dit", "old"), place("decoder", "old")) in pairs


def test_the_loading_time_of_each_pool_counts() -> None:
    jobs = {"encoder/old": 1, "dit/old": 2, "decoder/old": 1}
    quick, slow = TwoPools(jobs, budget=4), TwoPools(jobs, budget=4)
    slow.loads["new"] = 2000.0
    for fleet in (quick, slow):
        fleet.wait_for(1, 10)
    assert quick.decide().moves
    assert all(move.target is None or move.target.pool == "old" for move in slow.decide().moves)


def test_who_cannot_start_on_a_failed_pool_starts_on_another() -> None:
    replicas = {
        "encoder/old": 1, "decoder/old": 1, "dit/old": 1,
        "dit/new": Replicas(starting=2, starting_since=0.0),
    }  # fmt: skip
    fleet = TwoPools(replicas, unequal(old=8), budget=5)
    fleet.usable["new"] = 0
    fleet.wait_for(1, 20)
    decision = fleet.decide()
    count = decision.moves[0].count
    assert decision.moves == (
        Move(place("dit", "new"), None, count, cancel=True),
        Move(None, place("dit", "old"), count),
    )


def test_no_more_are_taken_back_than_have_been_asked_for() -> None:
    replicas = {"encoder/old": 1, "decoder/old": 1, "dit/old": 1, "dit/new": Replicas(starting=2)}
    fleet = TwoPools(replicas, unequal(old=8), budget=5)
    fleet.usable["new"] = 0
    found = fleet.candidates()
    one = Candidate((Leg((1, 1), (1, 0), 2, stuck=True),))
    assert found.together(one, Candidate((Leg((1, 1), (2, 0), 1, stuck=True),))) is None
    assert found.checked(one.legs) == one


def test_the_last_replica_of_a_stage_is_replaced_if_its_pool_has_failed() -> None:
    replicas = {"encoder/old": 1, "decoder/old": 1, "dit/new": Replicas(starting=1)}
    fleet = TwoPools(replicas, budget=3)
    fleet.usable["new"] = 0
    fleet.wait_for(1, 5)
    assert fleet.decide().moves == (
        Move(place("dit", "new"), None, cancel=True),
        Move(None, place("dit", "old")),
    )


def test_who_starts_on_a_pool_that_works_is_left_alone() -> None:
    replicas = {"dit/new": Replicas(starting=2, available_at=(30.0, 30.0))}
    assert TwoPools(replicas).room().stuck(place("dit", "new")) == 0
    # Nobody can say when, but there are accelerators for them.
    assert TwoPools({"dit/new": Replicas(starting=2)}).room().stuck(place("dit", "new")) == 0


def test_a_stage_is_never_left_without_replicas_on_the_way() -> None:
    # The plan has the only encoder on the other pool.
    fleet = TwoPools({"encoder/new": 1, "dit/old": 2, "dit/new": 3, "decoder/old": 2})
    found = fleet.candidates().toward(
        {place("encoder", "old"): 1, place("dit", "old"): 1, place("dit", "new"): 4,
         place("decoder", "old"): 2}
    )  # fmt: skip
    assert found is not None
    first = [leg for leg in found.legs if not leg.later]
    then = [leg for leg in found.legs if leg.later]
    assert [(leg.source, leg.target) for leg in first] == [((1, 0), (0, 0))]
    assert [(leg.source, leg.target) for leg in then] == [((0, 1), (1, 1))]


def test_a_maximum_holds_across_pools() -> None:
    profile = unequal(decoder={"max": 2})
    fleet = TwoPools({"encoder/old": 1, "dit/new": 4, "decoder/old": 2}, profile, budget=7)
    fleet.wait_for(2, 60)
    assert all(
        leg.target[0] != 2 or (leg.source is not None and leg.source[0] == 2)
        for one in (*fleet.candidates().single(), *fleet.candidates().across())
        for leg in one.legs
    )


def test_changes_that_need_the_same_replicas_are_not_made_together() -> None:
    fleet = TwoPools({"encoder/old": 1, "dit/old": 2, "dit/new": 1, "decoder/old": 1})
    found = fleet.candidates()
    one = Candidate((Leg((1, 0), (2, 0), 1),))
    assert found.together(one, Candidate((Leg((2, 0), (0, 0), 1),))) is None
    assert found.together(one, Candidate((Leg((1, 0), (0, 0), 2),))) is None
    both = found.together(one, Candidate((Leg(None, (1, 1), 1),)))
    assert both is not None
    assert both.legs == (Leg((1, 0), (2, 0), 1), Leg(None, (1, 1), 1))
    twice = found.together(one, one)
    assert twice is not None
    assert twice.legs == (Leg((1, 0), (2, 0), 2),)


def test_plans_are_the_exact_ones() -> None:
    fleet = TwoPools({"encoder/old": 1, "dit/old": 1, "decoder/old": 2, "dit/new": 4})
    predictor = ProfilePredictor(fleet.profile)
    plans = Targets(fleet.profile, 8).plans(fleet.observation(), (), {ONE: 0.1}, 180.0, predictor)
    # Three decoders of 8 s keep up with three DiTs of 8 s; a fourth of either is of no use.
    assert plans == [
        {place("encoder", "old"): 1, place("dit", "new"): 3, place("decoder", "old"): 3}
    ]


def test_one_pool_needs_no_plan() -> None:
    profile = unequal()
    single = profile.model_copy(update={"pools": {"old": profile.pools["old"]}})
    fleet = TwoPools({"dit/old": 1})
    assert Targets(single, 4).plans(fleet.observation(), (), {ONE: 1.0}, 180.0,
                                    ProfilePredictor(profile)) == []  # fmt: skip


@pytest.mark.parametrize("count", [40, 900])
def test_many_jobs_are_taken_together_and_capacity_stays_exact(count: int) -> None:
    fleet = TwoPools({"encoder/old": 1, "dit/new": 4, "decoder/old": 3})
    fleet.wait_for(1, count)
    view = View.of(fleet.profile)
    outlook = view.outlook(
        fleet.observation(), fleet.jobs, {}, 0.0, ProfilePredictor(fleet.profile), (), 0.0
    )
    assert outlook.unit == 1
    assert sum(item.weight for item in outlook.items) == count
    assert len(outlook.items) <= 300
    # Three decoders of 8 s are the bottleneck.
    assert outlook.prospect().last == pytest.approx(count * 8 / 3 + 8, rel=0.15)


def test_a_long_drain_is_no_failed_change() -> None:
    profile = unequal(old=5, new=0)
    fleet = TwoPools({"encoder/old": 1, "dit/old": 3, "decoder/old": 1}, profile, change_timeout=15)
    fleet.wait_for(2, 40)
    fleet.jobs += [JobGroup(1, ONE, 1, 2.0, "old", 2.0)] * 3
    decision = fleet.decide()
    assert decision.moves
    # Up to 40 s until a DiT on the slow pool is free, and 20 s to load.
    for _ in range(7):
        source = decision.moves[0].source
        assert source == place("dit", "old")
        fleet.replicas["dit"]["old"] = Replicas(ready=2, draining=1)
        assert fleet.decide().reason is Reason.CHANGE_UNDER_WAY
    assert fleet.decide().reason is Reason.PENDING_EXPIRED


counts = st.builds(
    Replicas,
    ready=st.integers(0, 3),
    starting=st.integers(0, 3),
    draining=st.integers(0, 1),
)
spots = st.fixed_dictionaries({f"{stage}/{pool}": counts for stage in STAGES for pool in SECONDS})


@given(
    replicas=spots,
    jobs=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 25)), max_size=3),
    budget=st.integers(3, 14),
    usable=st.fixed_dictionaries({"old": st.integers(0, 9), "new": st.integers(0, 9)}),
    arrivals=st.integers(0, 20),
)
def test_no_decision_takes_more_than_pools_and_budget_have(
    replicas: dict[str, Replicas | int],
    jobs: list[tuple[int, int]],
    budget: int,
    usable: dict[str, int],
    arrivals: int,
) -> None:
    fleet = TwoPools(replicas, unequal(old=9, new=9), budget=budget)
    fleet.usable = usable
    fleet.decide()
    for stage, count in jobs:
        fleet.wait_for(stage, count)
    fleet.arrived = {ONE: arrivals}
    moves = fleet.decide().moves
    begun = [move for move in moves if move.target is not None]
    held = {
        pool: sum(fleet.replicas[stage][pool].held for stage in STAGES) for pool in fleet.usable
    }
    for pool, most in usable.items():
        arriving = sum(
            move.count
            for move in begun
            if move.target is not None
            and move.target.pool == pool
            and (move.source is None or move.source.pool != pool)
        )
        assert arriving <= max(0, most - held[pool])
    freed = sum(move.count for move in moves if move.source is not None and move.source.pool
                != (move.target.pool if move.target else ""))  # fmt: skip
    starting = sum(
        move.count
        for move in begun
        if move.source is None or move.source.pool != move.target.pool  # type: ignore[union-attr]
    )
    assert starting <= max(0, budget - sum(held.values()) + freed)
    for stage in STAGES:
        ready = sum(one.ready for one in fleet.replicas[stage].values())
        committed = sum(one.committed for one in fleet.replicas[stage].values())
        leaving = 0
        for pool in SECONDS:
            out = sum(
                move.count
                for move in moves
                if move.source == place(stage, pool) and not move.cancel
            )
            assert out <= fleet.replicas[stage][pool].ready
            taken_back = sum(
                move.count for move in moves if move.source == place(stage, pool) and move.cancel
            )
            assert taken_back <= fleet.replicas[stage][pool].starting
            leaving += out
        assert leaving <= ready
        assert leaving == 0 or committed - leaving >= 1


def test_a_decision_over_many_places_needs_few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = {f"p{n}": {"accelerators": 8} for n in range(3)}
    stages = {
        stage: {"pools": {f"p{n}": {"seconds": seconds * (1 + n / 2)} for n in range(3)}}
        for stage, seconds in SECONDS["old"].items()
    }
    profile = validate(Profile, {"pools": pools, "stages": stages}, name="p")
    fleet = TwoPools({}, profile, budget=20)
    fleet.loads = dict.fromkeys(pools, 10.0)
    fleet.replicas = {stage: {f"p{n}": Replicas(2) for n in range(3)} for stage in STAGES}
    fleet.wait_for(2, 120)
    looks = 0
    prospect = Outlook.prospect

    def counted(self: Outlook, *changes: Any) -> Any:
        nonlocal looks
        looks += 1
        return prospect(self, *changes)

    monkeypatch.setattr(Outlook, "prospect", counted)
    fleet.decide()
    assert 0 < looks <= 200
