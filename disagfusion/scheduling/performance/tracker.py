"""What a process that sees jobs end keeps: samples, corrections and the model in use."""

from __future__ import annotations

import math
from dataclasses import replace

from disagfusion.scheduling.performance.drift import Drift
from disagfusion.scheduling.performance.lines import Provenance
from disagfusion.scheduling.performance.model import PairSummary, PerformanceModel
from disagfusion.scheduling.performance.samples import (
    Pair,
    Sample,
    SampleSnapshot,
    SampleStore,
    Verdict,
)
from disagfusion.scheduling.performance.settings import PerformanceSettings

# A correction that moves less is not published: each publication empties a cache.
_LEAST_CHANGE = 0.02


class PerformanceTracker:
    """Keeps samples, and corrects the model in use by the most recent of them.

    Args:
        model: To begin with: the profile, or what was saved.
        settings: The bounds.
        now: The time, by the clock of `Sample.at`.
    """

    def __init__(
        self, model: PerformanceModel, settings: PerformanceSettings, *, now: float
    ) -> None:
        self._settings = settings
        self._store = SampleStore(settings)
        self._model = model.as_of(now, settings.model_age)
        self._drifts: dict[Pair, Drift] = {
            pair: Drift(settings, factor) for pair, factor in model.corrections.items()
        }

    @property
    def model(self) -> PerformanceModel:
        """The model in use, with the corrections so far."""
        return self._model

    @property
    def store(self) -> SampleStore:
        """The samples."""
        return self._store

    def observe(self, sample: Sample, *, now: float, incarnation: str | None = None) -> Verdict:
        """Take note of a finished stage.

        Args:
            sample: As its worker reported it.
            now: The time.
            incarnation: Identifies one life of the worker, where known.
        """
        verdict = self._store.add(sample, now=now, incarnation=incarnation)
        if verdict is Verdict.KEPT and self._model.knows(sample.stage):
            self._correct(sample)
        return verdict

    def adopt(self, model: PerformanceModel, *, now: float) -> None:
        """Use another model; recent jobs are compared with its predictions from now on."""
        before, model = self._model, model.as_of(now, self._settings.model_age)
        for (stage, pool), drift in list(self._drifts.items()):
            if not model.knows(stage):
                del self._drifts[stage, pool]
                continue
            basis = model.basis(stage, pool)
            if not before.knows(stage) or basis.seconds != before.basis(stage, pool).seconds:
                drift.rebase(basis.typical)
        own = {pair: drift.factor for pair, drift in self._drifts.items()}
        self._model = model.with_corrections(own)

    def refresh(self, *, now: float) -> None:
        """Give up what has grown too old; to be called now and then."""
        for drift in self._drifts.values():
            drift.forget(now - self._settings.sample_age)
        self.adopt(self._model, now=now)

    def snapshot(self, *, now: float) -> SampleSnapshot:
        """Return the samples for a fit."""
        return self._store.snapshot(now)

    def summary(self, *, now: float) -> list[PairSummary]:
        """Return the numbers of every stage and pool, with those of samples and drifts."""
        return [
            replace(
                row,
                stored=self._store.count(row.stage, row.pool),
                drifted=(row.stage, row.pool) in self._drifts
                and self._drifts[row.stage, row.pool].drifted,
            )
            for row in self._model.summary(now)
        ]

    def _correct(self, sample: Sample) -> None:
        basis = self._model.basis(*sample.pair)
        drift = self._drifts.get(sample.pair)
        if drift is None:
            drift = self._drifts[sample.pair] = Drift(self._settings)
        fitted = basis.provenance is Provenance.FITTED
        since = drift.observe(
            sample.shape,
            sample.seconds,
            sample.at,
            predicted=basis.typical(sample.shape),
            spread=basis.spread,
            steady=not (fitted and basis.extrapolates(sample.shape.features)),
        )
        # Where nothing was fitted, what differs may be the profile and not the pool.
        if since is not None and fitted:
            self._store.begin_regime(*sample.pair, since)
        used = self._model.corrections.get(sample.pair, 1.0)
        factor = drift.factor
        if factor != used and (factor == 1.0 or abs(math.log(factor / used)) >= _LEAST_CHANGE):
            self._model = self._model.with_corrections({sample.pair: factor})
