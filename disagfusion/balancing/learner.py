"""The performance model of the running system; fits happen in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from contextlib import AbstractAsyncContextManager

from disagfusion.balancing.child import compute
from disagfusion.balancing.memory import Memory
from disagfusion.errors import DisagfusionError
from disagfusion.scheduling.performance.documents import from_json, to_json
from disagfusion.scheduling.performance.exchange import FitAnswer, FitRequest
from disagfusion.scheduling.performance.model import PairSummary, PerformanceModel
from disagfusion.scheduling.performance.samples import Pair, Sample, SampleSnapshot
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.performance.tracker import PerformanceTracker
from disagfusion.scheduling.predictors import ModelPredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.telemetry.logging import get_logger

_MIN_NEW_SAMPLES = 40
_NEW_SHARE = 0.5
_FIT_SECONDS = 120.0
# What grows too old does so in days.
_REFRESH_SECONDS = 3600.0
# As many as a correction rests on.
_RECENT = 16

_log = get_logger(__name__)


class Learner:
    """Collects samples, corrects the profile by them, and has it fitted from time to time.

    Args:
        profile: What is believed at first.
        memory: What was learned before, by a clock that is at zero now.
        gate: Lets several learners of one process fit one after the other; None: each by itself.
    """

    def __init__(
        self,
        profile: Profile,
        memory: Memory | None = None,
        *,
        gate: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self._profile = profile
        self._gate = gate or contextlib.nullcontext()
        self._settings = PerformanceSettings()
        self._tracker = _tracker(profile, memory, self._settings)
        self._observed = 0
        self._fitted = 0
        if memory is not None:
            self._observed = len(self._tracker.snapshot(now=0.0).samples)
            self._fitted = self._observed if self._tracker.model.pairs else 0
        self._refreshed = 0.0
        self._fit: asyncio.Task[None] | None = None

    @property
    def predictor(self) -> ModelPredictor:
        """What is known by now."""
        return ModelPredictor(self._tracker.model)

    @property
    def model(self) -> PerformanceModel:
        """The model in use, with the corrections so far."""
        return self._tracker.model

    @property
    def observed(self) -> int:
        """How many samples there have been; grows with each."""
        return self._observed

    def snapshot(self, now: float) -> SampleSnapshot:
        """Return the samples at hand."""
        return self._tracker.snapshot(now=now)

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
        except DisagfusionError as error:
            # The corrections of the tracker hold meanwhile.
            _log.warning("no fit", problem=error.message)
        finally:
            self._fit = None

    async def _run_once(self, now: float) -> None:
        snapshot = self._tracker.snapshot(now=now)
        request = FitRequest.of(snapshot, self._tracker.model, self._profile, self._settings, now)
        async with self._gate:
            output = await compute(
                "disagfusion.scheduling.performance", to_json(request), seconds=_FIT_SECONDS
            )
        result = from_json(FitAnswer, output, name="answer").result()
        self._tracker.adopt(result.model, now=now)
        _log.info("model fitted", version=result.model.version, samples=len(snapshot.samples))


def _tracker(
    profile: Profile, memory: Memory | None, settings: PerformanceSettings
) -> PerformanceTracker:
    """Return what goes on with what was learned before; times before zero are in the past."""
    if memory is None:
        return PerformanceTracker(PerformanceModel(profile), settings, now=0.0)
    fresh = [s for s in memory.samples.samples if s.at >= -settings.sample_age]
    pairs: defaultdict[Pair, list[Sample]] = defaultdict(list)
    for sample in sorted(fresh, key=lambda one: one.at):
        pairs[sample.pair].append(sample)
    model = memory.model
    # Corrections rest on recent jobs: where these are too old, there is none.
    given_up = {pair: 1.0 for pair in model.corrections if pair not in pairs}
    tracker = PerformanceTracker(model.with_corrections(given_up), settings, now=0.0)
    older = tuple(sample for samples in pairs.values() for sample in samples[:-_RECENT])
    tracker.store.restore(SampleSnapshot(older, memory.samples.regimes), 0.0)
    for samples in pairs.values():
        for sample in samples[-_RECENT:]:
            tracker.observe(sample, now=0.0)
    return tracker
