from __future__ import annotations

import random
from dataclasses import replace

import pytest
from simulationkit.runs import profile, workload

from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.calibration import Calibrating, calibrate, neighbours
from disagfusion.simulation.policies.named import set_up
from disagfusion.simulation.run import Simulation

SECONDS = {"encoder": 1.0, "dit": 8.0, "decoder": 3.0}
RATIO = {Place("encoder", "a"): 1, Place("dit", "a"): 6, Place("decoder", "a"): 1}


def test_neighbours_differ_in_one_parameter_and_stay_within_bounds() -> None:
    settings = BalancerSettings(tolerance=0.08)
    found = neighbours(settings)
    assert ("tolerance 0.08 → 0.04", replace(settings, tolerance=0.04)) in found
    assert not any(text.startswith("tolerance 0.08 → 0.16") for text, _ in found)
    assert len(found) == 4


@pytest.mark.parametrize(("gain", "taken"), [(-1.0, True), (0.9, False)])
def test_the_best_of_the_replays_is_taken_if_it_is_clear(gain: float, taken: bool) -> None:
    trace = [(2.0 * i, Shape(num_inference_steps=1 + i % 2)) for i in range(60)]
    settings = BalancerSettings()
    found = calibrate(trace, RATIO, profile(SECONDS), lambda place: 5.0, settings, 8, gain)
    assert found.message.startswith("60 jobs replayed: ")
    assert (found.settings != settings) is taken
    if taken:
        assert any(
            text in found.message and found.settings == other
            for text, other in neighbours(settings)
        )


def test_a_replay_that_cannot_end_changes_nothing() -> None:
    settings = BalancerSettings()
    costs = profile(SECONDS)
    found = calibrate([(0.0, Shape())], {}, costs, lambda place: 5.0, settings, 8, 0.05)
    assert found.settings == settings
    assert found.message.startswith("no replay: ")


def test_it_is_done_now_and_then_and_said() -> None:
    what = workload(
        arrivals=[{"shapes": {"one": 1}, "every": 2.5, "end": 1300}],
        initial={"encoder": {"a": 1}, "dit": {"a": 4}, "decoder": {"a": 3}},
        budget=8,
        rebind_seconds=5,
    )
    setup = set_up("calibrating", profile(SECONDS), what, lambda: {})
    assert isinstance(setup.balancer, Calibrating)
    simulation = Simulation(
        what, setup.profile, setup.balancer, initial=setup.initial, generator=random.Random
    )
    result = simulation.run()
    notes = [(d.at, note) for d in result.decisions for note in d.notes]
    assert [at for at, _ in notes] == [600.0, 1200.0]
    assert all("jobs replayed" in note for _, note in notes)
    assert result.completed == result.submitted
