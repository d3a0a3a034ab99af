"""What the running system learns, and forgets."""

from __future__ import annotations

import asyncio

import pytest

from disagfusion.balancing.learner import Learner
from disagfusion.scheduling.document import validate
from disagfusion.scheduling.performance.samples import Sample
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape

SHAPE = Shape(num_inference_steps=4)


def test_corrections_that_nothing_has_confirmed_for_long_are_given_up() -> None:
    profile = validate(
        Profile,
        {"pools": {"a": {"accelerators": 4}}, "stages": {"dit": {"pools": {"a": {"seconds": 2}}}}},
        name="profile",
    )
    age = PerformanceSettings().sample_age

    async def observe_and_wait() -> list[float]:
        learner = Learner(profile)
        for number in range(30):
            sample = Sample("dit", "a", SHAPE, 4.0, None, 10.0 * number)
            learner.observe(sample, now=10.0 * number, incarnation="one")
        found = [learner.predictor.seconds("dit", "a", SHAPE)]
        for now in (400.0, age + 4000.0):
            # Fewer than a fit needs.
            learner.consider(now)
            found.append(learner.predictor.seconds("dit", "a", SHAPE))
        return found

    corrected, soon, late = asyncio.run(observe_and_wait())
    assert corrected == soon == pytest.approx(4.0, rel=0.06)
    assert late == 2.0
