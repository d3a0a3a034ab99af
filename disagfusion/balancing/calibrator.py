"""Calibration of the running balancer: replays happen in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from disagfusion.balancing.child import compute
from disagfusion.balancing.replay import ReplayAnswer, ReplayRequest
from disagfusion.errors import DisagfusionError
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.observation import Observation
from disagfusion.scheduling.performance.documents import from_json, to_json
from disagfusion.scheduling.predictors import ModelPredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.calibration import BOUNDS, CalibrationSettings, Trace
from disagfusion.telemetry.logging import get_logger
from disagfusion.telemetry.metrics import BalancerMetrics

_SECONDS = 300.0
_MEMORY_BYTES = 2 << 30
# Of the time, what replays may take at most: with a small time scale they would hardly ever pause.
_SHARE = 0.1

_log = get_logger(__name__)


async def replay(request: ReplayRequest) -> ReplayAnswer:
    """Calibrate in a process of its own.

    Raises:
        DisagfusionError: Nothing came of it.
    """
    output = await compute(
        "disagfusion.balancing.replay",
        to_json(request),
        seconds=_SECONDS,
        memory_bytes=_MEMORY_BYTES,
    )
    return from_json(ReplayAnswer, output, name="answer")


class Calibrator:
    """Keeps the jobs of late, and has them replayed with other parameters from time to time.

    Args:
        settings: To begin with.
        fixed: Parameters that stay as they are, as they were given by people.
        profile: What stages cost, where nothing was learned.
        budget: Accelerators in all.
        metrics: Told of what comes of it.
        tuned: Parameters that were found better before, as by the process before this one.
        calibration: When, and how much.
        ask: Replays.
        clock: Real seconds.
    """

    def __init__(
        self,
        settings: BalancerSettings,
        fixed: Collection[str],
        profile: Profile,
        budget: int,
        metrics: BalancerMetrics,
        *,
        tuned: Mapping[str, float] | None = None,
        calibration: CalibrationSettings | None = None,
        ask: Callable[[ReplayRequest], Awaitable[ReplayAnswer]] = replay,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = settings
        self._fixed = frozenset(fixed)
        self._profile = profile
        self._budget = budget
        self._metrics = metrics
        self._calibration = calibration or CalibrationSettings()
        self._ask = ask
        self._clock = clock
        self._settings = _changed(settings, self._usable(tuned or {}))
        self._trace = Trace()
        self._news: list[str] = []
        self._begun: float | None = None
        self._rests_until = clock()
        self._task: asyncio.Task[None] | None = None
        self._export()

    @property
    def settings(self) -> BalancerSettings:
        """In use."""
        return self._settings

    @property
    def tuned(self) -> dict[str, float]:
        """The parameters that are not as they were given."""
        return {
            name: getattr(self._settings, name)
            for name in BOUNDS
            if getattr(self._settings, name) != getattr(self._given, name)
        }

    def news(self) -> tuple[str, ...]:
        """Return what has been found since it was asked last."""
        news, self._news = self._news, []
        return tuple(news)

    def consider(self, observation: Observation, now: float) -> None:
        """Take note of an observation, and begin to replay where it is time to.

        Args:
            observation: The system now.
            now: Seconds of the balancer's clock.
        """
        self._trace = self._trace.remember(
            observation, now, self._settings.period, self._calibration
        )
        if self._begun is None:
            self._begun = now
        if self._task is not None or now - self._begun < self._calibration.every:
            return
        if self._clock() < self._rests_until:
            return
        if len(self._trace.jobs) < self._calibration.least_jobs:
            return
        profile = self._profile
        if isinstance(observation.predictor, ModelPredictor):
            profile = observation.predictor.model.to_profile()
        request = ReplayRequest.of(
            self._trace,
            profile,
            self._settings,
            sorted(self._fixed),
            self._budget,
            self._calibration.gain,
        )
        self._begun = now
        self._task = asyncio.create_task(self._run(request), name="calibration")

    async def aclose(self) -> None:
        """End a replay that goes on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, request: ReplayRequest) -> None:
        begin = self._clock()
        try:
            self._take(await self._ask(request))
        except DisagfusionError as error:
            self._metrics.calibrated("failed")
            _log.warning("not calibrated", problem=error.message)
        finally:
            end = self._clock()
            self._rests_until = end + (end - begin) * (1.0 / _SHARE - 1.0)
            self._task = None

    def _take(self, found: ReplayAnswer) -> None:
        taken = self._usable(found.parameters)
        before = {name: getattr(self._settings, name) for name in taken}
        self._news.append(f"calibration: {found.message}")
        if not taken:
            self._metrics.calibrated("kept")
            _log.info("calibrated", result="kept", finding=found.message)
            return
        self._settings = _changed(self._settings, taken)
        self._metrics.calibrated("adopted")
        self._metrics.calibration_gain(found.gain)
        self._export()
        _log.info(
            "calibrated",
            result="adopted",
            before=before,
            after=taken,
            gain=round(found.gain, 4),
            finding=found.message,
        )

    def _usable(self, parameters: Mapping[str, float]) -> dict[str, float]:
        """Return those that may be changed, and so."""
        return {
            name: value
            for name, value in parameters.items()
            if name in BOUNDS
            and name not in self._fixed
            and BOUNDS[name][0] <= value <= BOUNDS[name][1]
        }

    def _export(self) -> None:
        for name in BOUNDS:
            self._metrics.parameter(name, getattr(self._settings, name))


def _changed(settings: BalancerSettings, parameters: Mapping[str, Any]) -> BalancerSettings:
    return replace(settings, **parameters)
