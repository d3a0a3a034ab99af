from __future__ import annotations

import pytest

from disagfusion.scheduling.document import validate
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.sensitivity import turning_points


def make(encoder: float, dit: float, decoder: float) -> Profile:
    seconds = {"encoder": encoder, "dit": dit, "decoder": decoder}
    stages = {name: {"pools": {"a": {"seconds": value}}} for name, value in seconds.items()}
    return validate(Profile, {"pools": {"a": {"accelerators": 8}}, "stages": stages}, name="p")


def test_the_plan_is_another_beyond_a_turning_point_and_the_same_before() -> None:
    seconds = {"encoder": 5.05, "dit": 74.2, "decoder": 9.0}
    profile = make(**seconds)
    best = plan(profile)
    points = turning_points(profile, None, None, best)
    assert {point.stage for point in points} == {"encoder", "dit", "decoder"}
    for point in points:
        value = seconds[point.stage]
        beyond = plan(make(**{**seconds, point.stage: value * point.factor}))
        # Found to a percent or two of the way.
        back = point.factor * (0.97 if point.factor > 1 else 1.03)
        before = plan(make(**{**seconds, point.stage: value * back}))
        assert beyond.replicas == point.replicas != best.replicas
        assert beyond.throughput == pytest.approx(point.throughput, rel=1e-6)
        assert before.replicas == best.replicas


def test_known_turning_points() -> None:
    # Two decoders from where six DiTs serve more than one decoder could: 9 s = 74.2 / 8.24.
    profile = make(5.05, 74.2, 9.0)
    points = turning_points(profile, None, None, plan(profile))
    factors = {(point.stage, point.factor > 1): point.factor for point in points}
    assert factors["decoder", True] == pytest.approx(14.84 / 9.0, rel=0.02)
    assert factors["dit", False] == pytest.approx(45.0 / 74.2, rel=0.02)


def test_a_plan_that_nothing_changes() -> None:
    stage = {"pools": {"a": {"seconds": 1.0}}, "max": 1}
    fields = {"pools": {"a": {"accelerators": 8}}, "stages": {"one": stage, "two": stage}}
    profile = validate(Profile, fields, name="p")
    assert turning_points(profile, None, None, plan(profile)) == []
