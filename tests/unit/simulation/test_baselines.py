"""The rules to compare with: they keep to minima, maxima and pools, as Deployments would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from simulationkit.runs import simulate, workload

from disagfusion.scheduling.decision import Decision, Move, Place
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
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.policies.bounds import Bounds
from disagfusion.simulation.policies.hpa import Hpa
from disagfusion.simulation.policies.plain import Plain
from disagfusion.simulation.policies.reference import Reference

STAGES = ("encoder", "dit", "decoder")
LIMITED: dict[str, dict[str, Any]] = {"encoder": {"min": 2}, "dit": {"max": 4}, "decoder": {}}


def profile(limits: dict[str, dict[str, Any]], each: dict[str, int], room: int = 8) -> Profile:
    """Return a profile in which the DiT takes longest by far."""
    seconds = {"encoder": 1.0, "dit": 30.0, "decoder": 2.0}
    stages = {
        stage: {
            **limits[stage],
            "pools": {"a": {"seconds": seconds[stage], "accelerators": each.get(stage, 1)}},
        }
        for stage in STAGES
    }
    fields = {"pools": {"a": {"accelerators": room}}, "stages": stages}
    return validate(Profile, fields, name="profile")


def observation(
    *ready: int, draining: int = 0, starting: int = 0, busy: float = 1.0, room: int = 8
) -> Observation:
    counts = [Replicas(ready=n) for n in ready]
    counts[0] = Replicas(ready=ready[0], draining=draining, starting=starting)
    return Observation(
        replicas={stage: {"a": one} for stage, one in zip(STAGES, counts, strict=True)},
        jobs=Fresh((JobGroup(0, Shape(), 50, 1.0),), 100.0),
        arrived=Fresh({}, 100.0),
        loads={stage: StageLoad(busy=Fresh(busy, 100.0)) for stage in STAGES},
        accelerators={"a": room},
    )


def rules(costs: Profile, budget: int | None = None) -> Iterator[Any]:
    predictor, bounds = ProfilePredictor(costs), Bounds(costs, "a", budget)
    yield Plain(STAGES, "a", predictor, bounds)
    for mode in ("predict", "feedback", "both"):
        yield Reference(STAGES, "a", predictor, bounds, mode)


def decide(rule: Any, seen: Observation) -> Decision:
    decision: Decision = rule.decide(rule.initial(), seen, 100.0)[1]
    return decision


def test_a_replica_goes_to_the_slowest_stage_where_nothing_limits_it() -> None:
    costs = profile({stage: {} for stage in STAGES}, {})
    for rule in list(rules(costs))[:2]:
        (move,) = decide(rule, observation(4, 2, 2)).moves
        assert move == Move(Place("encoder", "a"), Place("dit", "a"))


def test_none_is_taken_below_a_minimum_nor_given_above_a_maximum() -> None:
    for rule in rules(profile(LIMITED, {})):
        assert decide(rule, observation(2, 2, 1)).moves == ()
        assert decide(rule, observation(3, 4, 1)).moves == ()


@pytest.mark.parametrize(("budget", "room", "moves"), [(None, 8, 1), (7, 8, 0), (None, 7, 0)])
def test_a_stage_that_takes_more_accelerators_needs_room_for_them(
    budget: int | None, room: int, moves: int
) -> None:
    # Four encoders, one DiT of two and a decoder take 7; another DiT for an encoder takes 8.
    costs = profile({stage: {} for stage in STAGES}, {"dit": 2})
    for rule in list(rules(costs, budget))[:2]:
        assert len(decide(rule, observation(4, 1, 1, room=room)).moves) == moves


def test_a_stage_without_replicas_is_no_division_by_zero() -> None:
    costs = profile({stage: {} for stage in STAGES}, {})
    (move,) = decide(next(rules(costs)), observation(4, 0, 1)).moves
    assert move.target == Place("dit", "a")
    # Fewer replicas are left than stages.
    assert decide(next(rules(costs)), observation(1, 0, 1)).moves == ()


def test_an_autoscaler_asks_for_no_more_than_the_pool_holds() -> None:
    costs = profile({"encoder": {"max": 3}, "dit": {}, "decoder": {}}, {"dit": 3})
    asked = decide(Hpa(costs, "a"), observation(3, 2, 2, busy=1.0)).moves
    # Three more decoders at most at once; of DiTs two fit, of encoders three are allowed.
    assert {move.target.stage for move in asked if move.target} == {"decoder"}


def test_an_autoscaler_takes_back_what_is_pending_first() -> None:
    costs = profile({stage: {} for stage in STAGES}, {})
    rule = Hpa(costs, "a")
    state, moves = rule.initial(), ()
    for at in range(0, 900, 15):
        seen = observation(2, 1, 1, starting=3, busy=0.0)
        state, decision = rule.decide(state, seen, float(at))
        if decision.moves:
            moves = decision.moves
            break
    assert moves[0] == Move(Place("encoder", "a"), None, 2, cancel=True)


@pytest.mark.parametrize("policy", ["plain", "reference", "predict", "feedback", "hpa"])
def test_a_change_to_a_stage_of_more_accelerators_is_a_stop_and_a_start(policy: str) -> None:
    costs = profile({stage: {} for stage in STAGES}, {"dit": 2}, room=10)
    initial = {"encoder": {"a": 4}, "dit": {"a": 2}, "decoder": {"a": 2}}
    what = workload(trace=[[float(i), "one"] for i in range(60)], initial=initial)
    result = simulate(policy, what, costs)
    assert (result.completed, result.lost, result.budget_exceeded) == (60, 0, 0)
    assert result.most_accelerators <= 10


@pytest.mark.parametrize("policy", ["plain", "reference", "predict", "feedback", "hpa"])
def test_minima_and_maxima_hold_all_the_time(policy: str) -> None:
    initial = {"encoder": {"a": 3}, "dit": {"a": 3}, "decoder": {"a": 2}}
    what = workload(trace=[[float(i), "one"] for i in range(60)], initial=initial)
    result = simulate(policy, what, profile(LIMITED, {}))
    assert result.completed == 60
    assert all(
        sample.replicas["encoder"] >= 2 and sample.replicas["dit"] <= 4 for sample in result.samples
    )
