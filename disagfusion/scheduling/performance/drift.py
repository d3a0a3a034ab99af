"""How far recent jobs are from their predictions: a fast correction, and a detector of change.

The fit follows slowly, since it needs samples of all sizes. Between two fits one factor for each
stage and pool makes up for what changed for all sizes alike: a throttled accelerator, a profile
measured on another machine.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.shapes import Shape

_WINDOW = 16
_FORGETTING = 0.85
_WEIGHTS = tuple(_FORGETTING**age for age in range(_WINDOW))
# In spreads. Clipped, so that a straggler counts as little as any other late job.
_SLACK = 0.5
_CLIP = 2.0


@dataclass(frozen=True, slots=True)
class _Recent:
    at: float
    shape: Shape
    seconds: float
    log_ratio: float


class Drift:
    """The recent jobs of one stage on one pool against what was predicted for them.

    The correction is the median of the last ratios of observed to predicted seconds, each weighing
    0.85 of the one after it. It begins as if the last predictions had been right, so a change shows
    after four jobs and three stragglers in a row do not move it. The detector is a two-sided
    cumulative sum of the logarithms' deviations from the level believed so far (Page, 1954).

    Args:
        settings: Bounds.
        correction: Factor to begin with, as after a restart.
    """

    def __init__(self, settings: PerformanceSettings, correction: float = 1.0) -> None:
        self._settings = settings
        self._recent: deque[_Recent] = deque(maxlen=_WINDOW)
        self._before = self._level = math.log(correction)
        self._upward = _Sum()
        self._downward = _Sum()

    @property
    def factor(self) -> float:
        """By which predictions are to be multiplied; 1.0 within the dead band."""
        level = self._median()
        if abs(level) < math.log1p(self._settings.dead_band):
            return 1.0
        limit = math.log(self._settings.correction_limit)
        return math.exp(max(-limit, min(limit, level)))

    @property
    def drifted(self) -> bool:
        """Whether a change was confirmed that no fit has made up for yet."""
        return abs(self._level) > math.log1p(self._settings.dead_band)

    def observe(
        self,
        shape: Shape,
        seconds: float,
        at: float,
        *,
        predicted: float,
        spread: float,
        steady: bool = True,
    ) -> float | None:
        """Take note of a finished job.

        Args:
            shape: Of the job.
            seconds: Observed.
            at: When it ended.
            predicted: Typical seconds of such a job, before any correction.
            spread: Robust relative deviation of seconds from predictions.
            steady: Whether the prediction is reliable for this shape; only then can the job
                confirm a drift.

        Returns:
            Where this job confirms a drift: since when.
        """
        ratio = math.log(seconds / predicted)
        self._recent.append(_Recent(at, shape, seconds, ratio))
        if not steady:
            return None
        noise = max(spread, self._settings.drift_noise)
        deviation = max(-_CLIP, min(_CLIP, (ratio - self._level) / noise))
        self._upward.add(deviation)
        self._downward.add(-deviation)
        for total in (self._upward, self._downward):
            if total.value >= self._settings.drift_threshold:
                return self._confirm(total.count)
        return None

    def rebase(self, predict: Callable[[Shape], float]) -> None:
        """Compare the recent jobs with another model's predictions; no drift is known of it."""
        self._recent = deque(
            (
                replace(recent, log_ratio=math.log(recent.seconds / predict(recent.shape)))
                for recent in self._recent
            ),
            maxlen=_WINDOW,
        )
        self._before = self._level = 0.0
        self._restart()

    def forget(self, before: float) -> None:
        """Drop jobs that ended before a time; without any left there is no correction."""
        while self._recent and self._recent[0].at < before:
            self._recent.popleft()
            self._before = 0.0
        if not self._recent:
            self._before = self._level = 0.0
            self._restart()

    def _confirm(self, jobs: int) -> float | None:
        run = list(self._recent)[-jobs:]
        ratios = sorted(recent.log_ratio for recent in run)
        before, level = self._level, ratios[len(ratios) // 2]
        self._restart()
        # Chance alone gets here in the end, but not with a change that matters.
        if abs(level - before) <= math.log1p(self._settings.dead_band):
            return None
        self._level = level
        # The sum may have begun to grow by chance, some jobs before the change.
        return next(
            recent.at
            for recent in run
            if abs(recent.log_ratio - level) <= abs(recent.log_ratio - before)
        )

    def _restart(self) -> None:
        self._upward = _Sum()
        self._downward = _Sum()

    def _median(self) -> float:
        weighted = [
            (recent.log_ratio, weight)
            for recent, weight in zip(reversed(self._recent), _WEIGHTS, strict=False)
        ]
        missing = sum(_WEIGHTS[len(weighted) :])
        if missing:
            weighted.append((self._before, missing))
        weighted.sort()
        half = 0.5 * sum(weight for _, weight in weighted)
        passed = 0.0
        for value, weight in weighted:
            passed += weight
            if passed >= half:
                return value
        return weighted[-1][0]


class _Sum:
    """One side of the cumulative sum, and for how many jobs it has not been zero."""

    def __init__(self) -> None:
        self.value = 0.0
        self.count = 0

    def add(self, deviation: float) -> None:
        if not self.value:
            self.count = 0
        self.count += 1
        self.value = max(0.0, self.value + deviation - _SLACK)
