"""Where predictions of service times come from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from disagfusion.scheduling.performance.model import PerformanceModel
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape


@dataclass(frozen=True, slots=True)
class ProfilePredictor:
    """Predicts what the profile says."""

    profile: Profile

    def seconds(self, stage: str, pool: str, shape: Shape) -> float:
        """Return the mean seconds of a job; infinite where it does not fit."""
        if not self.profile.fits(stage, pool, shape):
            return math.inf
        return self.profile.stages[stage].pools[pool].seconds_of(shape)


@dataclass(frozen=True, slots=True)
class ModelPredictor:
    """Predicts what the performance model has learned."""

    model: PerformanceModel

    def seconds(self, stage: str, pool: str, shape: Shape) -> float:
        """Return the mean seconds of a job; infinite where it does not fit."""
        prediction = self.model.predict(stage, pool, shape)
        memory = self.model.profile.pools[pool].memory_gib
        peak = prediction.peak_gib
        if memory is not None and peak is not None and peak > memory:
            return math.inf
        return prediction.seconds
