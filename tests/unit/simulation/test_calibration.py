from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from simulationkit.runs import profile, workload

from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.observation import Fresh, Missing, Observation, Replicas, Signal
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.calibration import (
    Calibrated,
    Calibrating,
    CalibrationSettings,
    Trace,
    calibrate,
    neighbours,
)
from disagfusion.simulation.policies.named import set_up
from disagfusion.simulation.run import Simulation

SECONDS = {"encoder": 1.0, "dit": 8.0, "decoder": 3.0}
REBIND = dict.fromkeys(SECONDS, 5.0)
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
    found = calibrate(trace, RATIO, profile(SECONDS), settings, 8, gain, rebind_seconds=REBIND)
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
    found = calibrate([(0.0, Shape())], {}, costs, settings, 8, 0.05)
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


def test_what_is_fixed_stays() -> None:
    settings = BalancerSettings()
    fixed = ("tolerance", "passing_tolerance", "forecast_horizon")
    assert not neighbours(settings, fixed)
    assert {text.split()[0] for text, _ in neighbours(settings, fixed[:2])} == {fixed[2]}
    found = calibrate([(0.0, Shape())], RATIO, profile(SECONDS), settings, 8, 0.05, fixed=fixed)
    assert found == Calibrated(settings, "no parameter may be changed")


def seen(arrived: Signal[Mapping[Shape, int]], dits: int = 1) -> Observation:
    return Observation(
        replicas={"dit": {"a": Replicas(ready=dits)}},
        jobs=Fresh((), 0.0),
        arrived=arrived,
        loads={},
        accelerators={"a": 8},
    )


def test_a_trace_spreads_what_was_counted_and_forgets_what_is_old() -> None:
    calibration = CalibrationSettings(window=30.0, most_jobs=4)
    trace, one = Trace(), Shape()
    for now, count in ((10.0, 2), (20.0, 1), (50.0, 3)):
        trace = trace.remember(
            seen(Fresh({one: count}, now), dits=int(now)), now, 10.0, calibration
        )
    # Between 20 and 50 nobody looked.
    assert trace.jobs == ((25.0, one), (35.0, one), (45.0, one))
    assert trace.initial == {Place("dit", "a"): 20}
    trace = trace.remember(seen(Fresh({one: 4}, 54.0)), 54.0, 10.0, calibration)
    assert [at for at, _ in trace.jobs] == [50.5, 51.5, 52.5, 53.5]
    assert trace.initial == {Place("dit", "a"): 50}


def test_a_trace_begins_anew_where_nobody_counted() -> None:
    calibration = CalibrationSettings()
    trace = Trace().remember(seen(Fresh({Shape(): 5}, 10.0)), 10.0, 10.0, calibration)
    trace = trace.remember(seen(Missing("gone"), dits=3), 20.0, 10.0, calibration)
    assert trace.jobs == ()
    assert trace.initial == {Place("dit", "a"): 3}
