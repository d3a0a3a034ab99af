"""A simulation whose jobs can never end says so, whatever its rule does meanwhile."""

from __future__ import annotations

import random

import pytest
from simulationkit.runs import profile, simulate, workload

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Observation
from disagfusion.simulation.run import Simulation

RATIO = {"encoder": {"a": 1}, "dit": {"a": 1}, "decoder": {"a": 1}}
ENCODER = Place("encoder", "a")


class Restless:
    """Starts an encoder and stops it again, for ever."""

    name = "restless"
    period = 10.0

    def initial(self) -> int:
        return 0

    def decide(self, state: int, observation: Observation, now: float) -> tuple[int, Decision]:
        move = Move(ENCODER, None) if state % 2 else Move(None, ENCODER)
        return state + 1, Decision(now, (move,), Reason.REBALANCE)


def simulation(repair: float | None, rebind: float) -> Simulation[int]:
    failure = {"at": 3, "pool": "a", "stage": "dit", "replicas": 1, "repair_seconds": repair}
    what = workload(
        trace=[[0, "one"]] * 3,
        initial=RATIO,
        failures=[failure],
        rebind_seconds={"encoder": 8.0, "dit": rebind, "decoder": 8.0},
    )
    return Simulation(
        what,
        profile({"encoder": 1.0, "dit": 4.0, "decoder": 2.0}),
        Restless(),
        initial=RATIO,
        generator=lambda stream: random.Random(stream),
    )


def test_replicas_that_come_and_go_are_no_progress() -> None:
    with pytest.raises(FailedPreconditionError, match="never end"):
        simulation(repair=None, rebind=8.0).run()


def test_long_loading_is_waited_for() -> None:
    result = simulation(repair=1.0, rebind=5000.0).run()
    assert result.completed == 3
    assert result.last_finish_seconds > 5000.0


def test_a_long_repair_is_waited_for() -> None:
    failure = {"at": 3, "pool": "a", "stage": "dit", "replicas": 1, "repair_seconds": 5000}
    what = workload(trace=[[0, "one"]] * 3, initial=RATIO, failures=[failure])
    costs = profile({"encoder": 1.0, "dit": 4.0, "decoder": 2.0}, accelerators=3)
    result = simulate("static", what, costs)
    assert result.completed == 3
    assert result.last_finish_seconds > 5000.0
