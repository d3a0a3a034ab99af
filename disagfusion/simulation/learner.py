"""The performance model of a simulated system, learning from the stages that end."""

from __future__ import annotations

from disagfusion.scheduling.performance.fitting import fit
from disagfusion.scheduling.performance.model import PerformanceModel
from disagfusion.scheduling.performance.samples import Sample
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.performance.tracker import PerformanceTracker
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.fleet import Replica

_MIN_NEW_SAMPLES = 40
_NEW_SHARE = 0.5


class Learner:
    """Collects samples, corrects the profile by them, and fits it from time to time.

    Args:
        profile: What is believed at first.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._settings = PerformanceSettings()
        self._tracker = PerformanceTracker(PerformanceModel(profile), self._settings, now=0.0)
        self._fitted = 0
        self._observed = 0

    def observe(self, replica: Replica, shape: Shape, seconds: float, now: float) -> None:
        """Take note of a stage that has ended."""
        place = replica.place
        sample = Sample(place.stage, place.pool, shape, seconds, None, now)
        self._tracker.observe(sample, now=now, incarnation=f"{replica.name}/{replica.incarnation}")
        self._observed += 1

    def model(self, now: float) -> PerformanceModel:
        """Return what is known by now."""
        new = self._observed - self._fitted
        if new >= max(_MIN_NEW_SAMPLES, _NEW_SHARE * self._fitted):
            self._fitted = self._observed
            snapshot = self._tracker.snapshot(now=now)
            result = fit(snapshot, self._tracker.model, self._profile, self._settings, now)
            self._tracker.adopt(result.model, now=now)
        return self._tracker.model
