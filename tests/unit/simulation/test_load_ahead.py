"""Replicas that load the next stage's weights while they finish their jobs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from simulationkit.runs import profile, simulate, workload

from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Observation
from disagfusion.simulation.run import Simulation

RATIO = {"encoder": {"a": 1}, "dit": {"a": 2}, "decoder": {"a": 1}}
# Two jobs: the DiTs have done with them at 21 and 22 s, the only decoder with the first at 71 s.
SECONDS = {"encoder": 1.0, "dit": 20.0, "decoder": 50.0}


@dataclass(frozen=True, slots=True)
class OneMove:
    """Has a DiT become a decoder after five seconds."""

    name: str = "one move"
    period: float = 5.0

    def initial(self) -> bool:
        return False

    def decide(self, state: bool, observation: Observation, now: float) -> tuple[bool, Decision]:
        moves = () if state else (Move(Place("dit", "a"), Place("decoder", "a")),)
        return True, Decision(now, moves, Reason.REBALANCE)


def last_finish(load: float, *, ahead: bool, **fields: Any) -> float:
    costs = profile(SECONDS, accelerators=4, start_seconds=load, load_ahead=ahead)
    what = workload(trace=[[0, "one"]] * 2, initial=RATIO, **fields)
    result = Simulation(
        what, costs, OneMove(), initial=RATIO, generator=lambda _: random.Random(0)
    ).run()
    assert (result.completed, result.moves) == (2, 1)
    return result.last_finish_seconds


@pytest.mark.parametrize(
    ("load", "ahead", "there"),
    [
        # It drains from 5 to 21 s; the second job is there at 22.
        (10.0, False, 31.0),
        (10.0, True, 22.0),
        (17.0, True, 22.0),
        (18.0, False, 39.0),
        (18.0, True, 23.0),
        (30.0, False, 51.0),
        (30.0, True, 35.0),
        (0.0, False, 22.0),
        (0.0, True, 22.0),
    ],
)
def test_it_works_when_drain_and_loading_are_both_over(
    load: float, ahead: bool, there: float
) -> None:
    assert last_finish(load, ahead=ahead) == there + 50.0


@pytest.mark.parametrize(
    ("fixed", "there"),
    [
        (10.0, 31.0),
        ({"decoder": 10.0}, 31.0),
        # Says nothing of decoders: the profile does.
        ({"dit": 10.0}, 35.0),
    ],
)
def test_seconds_that_the_workload_fixes_count_from_the_end_of_the_last_job(
    fixed: float | dict[str, float], there: float
) -> None:
    assert last_finish(30.0, ahead=True, rebind_seconds=fixed) == there + 50.0


def shifting(**fields: Any) -> dict[str, Any]:
    return {
        "shapes": {"one": {}, "long": {"num_inference_steps": 4}},
        "arrivals": [
            {"shapes": {"long": 1}, "every": 9, "end": 400},
            {"shapes": {"one": 1}, "every": 3, "start": 400, "end": 800},
        ],
        "initial": {"encoder": {"a": 1}, "dit": {"a": 6}, "decoder": {"a": 1}},
        **fields,
    }


def test_the_balancer_gains_by_it_and_knows() -> None:
    def run(*, ahead: bool, **fields: Any) -> Any:
        costs = profile({"encoder": 1.0, "dit": 1.0, "decoder": 6.0}, start_seconds=15.0)
        stages = dict(costs.stages)
        per_step = {"pools": {"a": {"model": {"constant": 1, "per_step": 10}}}}
        stages["dit"] = type(stages["dit"]).model_validate(per_step)
        pools = {"a": costs.pools["a"].model_copy(update={"load_ahead": ahead})}
        costs = costs.model_copy(update={"stages": stages, "pools": pools})
        return simulate("hybrid", workload(**shifting(**fields)), costs)

    behind, ahead = run(ahead=False), run(ahead=True)
    assert ahead.completed == behind.completed == ahead.submitted
    assert ahead.latency_seconds["mean"] < behind.latency_seconds["mean"]
    assert ahead.last_finish_seconds <= behind.last_finish_seconds
    # Of a workload that fixes the seconds nothing changes, the balancer's outlook included.
    fixed = run(ahead=False, rebind_seconds=15)
    assert run(ahead=True, rebind_seconds=15) == fixed
    assert fixed.decisions == behind.decisions
