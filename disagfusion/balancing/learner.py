"""The performance model of the running system; fits happen in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

from disagfusion.errors import DisagfusionError
from disagfusion.scheduling.performance.documents import from_json, to_json
from disagfusion.scheduling.performance.exchange import FitAnswer, FitRequest
from disagfusion.scheduling.performance.model import PairSummary, PerformanceModel
from disagfusion.scheduling.performance.samples import Sample
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.performance.tracker import PerformanceTracker
from disagfusion.scheduling.predictors import ModelPredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.telemetry.logging import get_logger

_MIN_NEW_SAMPLES = 40
_NEW_SHARE = 0.5
_FIT_SECONDS = 120.0
_NICENESS = 10
# What grows too old does so in days.
_REFRESH_SECONDS = 3600.0

_log = get_logger(__name__)


class Learner:
    """Collects samples, corrects the profile by them, and has it fitted from time to time.

    Args:
        profile: What is believed at first.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._settings = PerformanceSettings()
        self._tracker = PerformanceTracker(PerformanceModel(profile), self._settings, now=0.0)
        self._observed = 0
        self._fitted = 0
        self._refreshed = 0.0
        self._fit: asyncio.Task[None] | None = None

    @property
    def predictor(self) -> ModelPredictor:
        """What is known by now."""
        return ModelPredictor(self._tracker.model)

    def summary(self, now: float) -> list[PairSummary]:
        """Return the numbers of every stage and pool."""
        return self._tracker.summary(now=now)

    def observe(self, sample: Sample, *, now: float, incarnation: str) -> None:
        """Take note of a stage that has ended."""
        self._tracker.observe(sample, now=now, incarnation=incarnation)
        self._observed += 1

    def consider(self, now: float) -> None:
        """Begin a fit where there is enough that is new, and give up what has grown too old."""
        if now >= self._refreshed + _REFRESH_SECONDS:
            self._refreshed = now
            self._tracker.refresh(now=now)
        new = self._observed - self._fitted
        if self._fit is None and new >= max(_MIN_NEW_SAMPLES, _NEW_SHARE * self._fitted):
            self._fitted = self._observed
            self._fit = asyncio.create_task(self._run(now), name="fit")

    async def aclose(self) -> None:
        """End a fit that goes on."""
        if self._fit is not None:
            self._fit.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._fit

    async def _run(self, now: float) -> None:
        try:
            await self._run_once(now)
        except (DisagfusionError, OSError, TimeoutError) as error:
            # The corrections of the tracker hold meanwhile.
            _log.warning("no fit", problem=str(error) or type(error).__name__)
        finally:
            self._fit = None

    async def _run_once(self, now: float) -> None:
        snapshot = self._tracker.snapshot(now=now)
        request = FitRequest.of(snapshot, self._tracker.model, self._profile, self._settings, now)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "disagfusion.scheduling.performance"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        try:
            async with asyncio.timeout(_FIT_SECONDS):
                output, errors = await process.communicate(to_json(request).encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            problem = errors.decode(errors="replace").strip().splitlines()[-1:]
            _log.warning("no fit", status=process.returncode, problem="".join(problem))
            return
        result = from_json(FitAnswer, output, name="answer").result()
        self._tracker.adopt(result.model, now=now)
        _log.info("model fitted", version=result.model.version, samples=len(snapshot.samples))
