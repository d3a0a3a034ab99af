"""The balancer that sizes by the demand, on simulated fleets of many kinds."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from simulationkit.runs import workload

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.behavior import Behavior, Direction
from disagfusion.scheduling.decision import Balancer, Decision
from disagfusion.scheduling.document import validate
from disagfusion.scheduling.observation import Observation
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.arrivals import demand_of
from disagfusion.simulation.policies.named import set_up
from disagfusion.simulation.result import Result
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.workload import Workload

AT_ONCE = Behavior(Direction(0.0, ()), Direction(0.0, ()))


class Watched:
    """A rule, and the least replicas of each stage that took work when it was asked."""

    def __init__(self, rule: Balancer[Any]) -> None:
        self._rule = rule
        self.name, self.period = rule.name, rule.period
        self.least: dict[str, int] = {}

    def initial(self) -> Any:
        return self._rule.initial()

    def decide(self, state: Any, observation: Observation, now: float) -> tuple[Any, Decision]:
        for stage, pools in observation.replicas.items():
            ready = sum(one.ready for one in pools.values())
            self.least[stage] = min(ready, self.least.get(stage, ready))
        state, decision = self._rule.decide(state, observation, now)
        for stage, pools in observation.replicas.items():
            leaving = sum(
                move.count
                for move in decision.moves
                if move.source is not None and move.source.stage == stage and not move.cancel
            )
            ready = sum(one.ready for one in pools.values())
            self.least[stage] = min(ready - leaving, self.least[stage])
        return state, decision


def run(what: Workload, costs: Profile, behavior: Behavior) -> tuple[Result, Mapping[str, int]]:
    def generator(stream: int) -> random.Random:
        return random.Random(stream)

    def planned() -> dict[str, dict[str, int]]:
        return plan(costs, demand_of(what, generator), what.budget, compare=False).replicas

    chosen = replace(BalancerSettings(), behavior=behavior)
    setup = set_up("elastic", costs, what, planned, chosen)
    watched = Watched(setup.balancer)
    result = Simulation(
        what, costs, watched, initial=setup.initial, generator=generator, learn=setup.learn
    ).run()
    return result, watched.least


def two_pools(minimum: int) -> Profile:
    pools = {
        "dear": {"accelerators": 4, "cost_per_hour": 2, "start_seconds": 60},
        "cheap": {"accelerators": 4, "cost_per_hour": 1, "start_seconds": 60},
    }
    stages = {
        stage: {"min": minimum, "pools": {pool: {"seconds": seconds} for pool in pools}}
        for stage, seconds in (("encoder", 2), ("dit", 5))
    }
    return validate(Profile, {"pools": pools, "stages": stages}, name="p")


@pytest.mark.parametrize("budget", [4, 5, 8, None])
@pytest.mark.parametrize("minimum", [1, 2])
def test_a_cheaper_pool_is_gone_to_without_a_gap(budget: int | None, minimum: int) -> None:
    """Every replica used to stop at once, and held outputs that nobody was left to take."""
    what = workload(
        arrivals=[{"shapes": {"one": 1}, "every": 4, "end": 600}],
        initial={"encoder": {"dear": 2}, "dit": {"dear": 2}},
        budget=budget,
    )
    result, least = run(what, two_pools(minimum), AT_ONCE)
    assert (result.completed, result.lost, result.budget_exceeded) == (150, 0, 0)
    assert min(least.values()) >= minimum
    assert result.latency_seconds["p95"] < 60.0


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    names = ["p", "q"][: draw(st.integers(1, 2))]
    pools = {
        name: {
            "accelerators": draw(st.integers(4, 7)),
            "cost_per_hour": draw(st.sampled_from([1, 2])),
            "start_seconds": draw(st.sampled_from([0, 5, 60])),
        }
        for name in names
    }
    stages = {}
    for stage in ("encoder", "dit", "decoder"):
        here = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        stages[stage] = {
            "min": draw(st.sampled_from([1, 1, 1, 2])) if len(names) == 2 else 1,
            "pools": {
                pool: {
                    "seconds": draw(st.sampled_from([0.5, 2.0, 6.0])),
                    "accelerators": draw(st.sampled_from([1, 1, 1, 2])) if len(names) == 2 else 1,
                }
                for pool in here
            },
        }
    return validate(Profile, {"pools": pools, "stages": stages}, name="random")


def fits(costs: Profile, budget: int) -> bool:
    """Whether the minima fit the pools and the budget."""
    try:
        plan(costs, None, budget, compare=False)
    except FailedPreconditionError:
        return False
    return True


@settings(max_examples=15)
@given(
    costs=profiles(),
    every=st.sampled_from([2.0, 5.0, 15.0]),
    then=st.sampled_from([1.0, 8.0, 30.0]),
    behavior=st.sampled_from([AT_ONCE, Behavior()]),
    rebind=st.sampled_from([None, 1.0, 100.0]),
    less=st.integers(0, 3),
)
def test_every_job_ends_and_no_stage_falls_below_its_minimum(
    costs: Profile, every: float, then: float, behavior: Behavior, rebind: float, less: int
) -> None:
    total = sum(pool.accelerators for pool in costs.pools.values())
    what = workload(
        arrivals=[
            {"shapes": {"one": 1}, "every": every, "end": 200},
            {"shapes": {"one": 1}, "every": then, "start": 200, "end": 500},
        ],
        rebind_seconds=rebind,
        budget=total - less,
    )
    assume(fits(costs, total - less))
    result, least = run(what, costs, behavior)
    assert result.completed == result.submitted > 0
    assert result.lost == result.budget_exceeded == 0
    assert all(least[stage] >= costs.stages[stage].min for stage in costs.stages)


def test_dynamo_13559_a_scale_down_kills_no_work_in_flight() -> None:
    """Replicas that were stopped took their jobs with them: from 8 requests per second to 0.2."""
    pools = {"a": {"accelerators": 8, "start_seconds": 30}}
    stages = {
        stage: {"pools": {"a": {"seconds": seconds}}}
        for stage, seconds in (("encoder", 1), ("dit", 200))
    }
    costs = validate(Profile, {"pools": pools, "stages": stages}, name="p")
    # Three jobs on six DiTs, and then hardly any: all but one are asked to leave meanwhile.
    what = workload(
        arrivals=[
            {"shapes": {"one": 1}, "every": 10, "count": 3},
            {"shapes": {"one": 1}, "every": 400, "start": 700, "count": 3},
        ],
        initial={"encoder": {"a": 1}, "dit": {"a": 6}},
    )
    chosen = BalancerSettings(sizing="demand", behavior=AT_ONCE, forecast_window=60.0)
    rule = set_up("elastic", costs, what, dict, chosen)
    result = Simulation(
        what,
        costs,
        rule.balancer,
        initial=rule.initial,
        generator=lambda stream: random.Random(stream),
    ).run()
    moves = [move for d in result.decisions if d.at < 200.0 for move in d.moves]
    left = 6 + sum(
        move.count if move.source is None else -move.count
        for move in moves
        if "dit" in {place.stage for place in (move.source, move.target) if place is not None}
    )
    # While all three were still computed.
    assert left < 3
    assert (result.completed, result.lost) == (6, 0)
    # No job was begun again: each took as long as its stages take.
    assert result.latency_seconds["max"] == pytest.approx(201.0)
