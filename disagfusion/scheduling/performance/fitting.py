"""Fitting: from samples, the current model and the profile to the next model, or a reason why not.

A fit takes seconds and some 130 MB for scikit-learn, so it belongs into a process of its own
(`python -m disagfusion.scheduling.performance`) and scikit-learn is only imported here, in `fit`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING

from disagfusion.scheduling.document import Count, Document, NonNegative
from disagfusion.scheduling.performance.documents import FittedPair
from disagfusion.scheduling.performance.features import scaled
from disagfusion.scheduling.performance.model import PerformanceModel
from disagfusion.scheduling.performance.samples import Pair, Sample, SampleSnapshot
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import CostModel

if TYPE_CHECKING:
    from disagfusion.scheduling.performance.regression import Regression

_GIB = float(1 << 30)
# Coefficients that differ less give the same predictions to every digit that matters.
_SAME = 1e-6


class Reason(StrEnum):
    """What came of the fit of one stage on one pool."""

    ADOPTED = "ADOPTED"
    UNCHANGED = "UNCHANGED"
    """The fit gives what is there already."""
    TOO_FEW_SAMPLES = "TOO_FEW_SAMPLES"
    NOTHING_FITTED = "NOTHING_FITTED"
    """No coefficient came out positive."""
    HOLD_OUT_ERROR = "HOLD_OUT_ERROR"
    """The fit is too far from samples that it had not seen."""
    NO_BETTER = "NO_BETTER"
    """On these samples, what predicts now does better."""
    REVERTED = "REVERTED"
    """Nor does the earlier fit do as well as the profile, which predicts again."""
    STALE = "STALE"
    """Nothing has confirmed the earlier fit for too long; it predicts no more."""


class PairResult(Document):
    """What came of the fit of one stage on one pool.

    Attributes:
        stage: Name of the stage.
        pool: Name of the pool.
        reason: Why it was adopted or not.
        samples: That the fit could use.
        error: Of the fit on the samples held out: median relative error.
        current_error: Of the earlier fit on the same.
        prior_error: Of the profile, or of what was borrowed, on the same.
    """

    stage: str
    pool: str
    reason: Reason
    samples: Count
    error: NonNegative | None = None
    current_error: NonNegative | None = None
    prior_error: NonNegative | None = None


@dataclass(frozen=True, slots=True)
class FitResult:
    """What came of a fit.

    Attributes:
        model: The next model; its version is greater if anything in it changed.
        results: For each stage and pool with a profile, samples or an earlier fit.
    """

    model: PerformanceModel
    results: tuple[PairResult, ...]


def fit(
    snapshot: SampleSnapshot,
    current: PerformanceModel | None,
    profile: Profile,
    settings: PerformanceSettings,
    now: float,
) -> FitResult:
    """Fit every stage and pool, and adopt each fit that proves itself on samples held out.

    Args:
        snapshot: The samples.
        current: The model that predicts now.
        profile: The prior.
        settings: The bounds.
        now: The time, by the clock of `Sample.at`.
    """
    before = PerformanceModel(profile)
    if current is not None:
        before = PerformanceModel(
            profile, current.pairs, current.corrections, version=current.version
        )
    samples = snapshot.by_pair()
    pairs = before.pairs
    corrections = before.corrections
    keys = {(stage, pool) for stage, what in profile.stages.items() for pool in what.pools}
    results = []
    for key in sorted(keys | samples.keys() | pairs.keys()):
        attempt = _Attempt(key, samples.get(key, []), before, settings, now)
        result, pair = attempt.run(drifted=key in snapshot.regimes)
        results.append(result)
        if result.reason in (Reason.ADOPTED, Reason.REVERTED, Reason.STALE):
            corrections.pop(key, None)
        if pair is None:
            pairs.pop(key, None)
        else:
            pairs[key] = pair
    changed = pairs != before.pairs
    model = PerformanceModel(profile, pairs, corrections, version=before.version + changed)
    return FitResult(model, tuple(results))


def split(samples: Sequence[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    """Divide samples into those to fit and those to judge by; the same ones each time.

    Args:
        samples: All of them.
        share: To judge by, at least one.
    """
    ordered = sorted(samples, key=_digest)
    held_out = max(1, round(len(ordered) * share))
    return ordered[held_out:], ordered[:held_out]


def _digest(sample: Sample) -> tuple[int, float]:
    text = f"{sample.stage} {sample.pool} {sample.shape!r} {sample.seconds!r} {sample.at!r}"
    return zlib.crc32(text.encode()), sample.at


def _error(model: CostModel, held_out: Sequence[Sample]) -> float:
    return median(abs(model.evaluate(s.shape) - s.seconds) / s.seconds for s in held_out)


@dataclass(frozen=True, slots=True)
class _Errors:
    """On the samples held out."""

    candidate: float | None = None
    current: float | None = None
    prior: float | None = None


class _Attempt:
    """The fit of one stage on one pool."""

    def __init__(
        self,
        key: Pair,
        samples: list[Sample],
        model: PerformanceModel,
        settings: PerformanceSettings,
        now: float,
    ) -> None:
        self._key = key
        self._samples = samples
        self._version = model.version + 1
        self._settings = settings
        self._now = now
        self._current = model.pairs.get(key)
        prior = model.as_of(now, settings.model_age).prior(*key)
        self._prior = None if prior is None else prior.seconds
        self._prior_peak = None if prior is None else prior.peak_gib

    def run(self, *, drifted: bool) -> tuple[PairResult, FittedPair | None]:
        """Fit and judge; return the fit that is to predict from now on, if any."""
        current = self._current
        if len(self._samples) < self._settings.minimum_samples:
            return self._keep(Reason.TOO_FEW_SAMPLES, _Errors())
        train, held_out = split(self._samples, self._settings.hold_out_share)
        # After a drift the samples are few; the earlier fit still knows the proportions.
        anchor = current.seconds if drifted and current is not None else self._prior
        candidate = self._regress(train, anchor)
        errors = _Errors(
            None if candidate is None else _error(candidate.model, held_out),
            None if current is None else _error(current.seconds, held_out),
            None if self._prior is None else _error(self._prior, held_out),
        )
        refusal = self._judge(errors)
        if refusal is not None or errors.candidate is None:
            return self._refuse(refusal or Reason.NOTHING_FITTED, errors)
        final = self._regress(self._samples, anchor)
        if final is None:
            return self._refuse(Reason.NOTHING_FITTED, errors)
        pair = self._pair(final, errors.candidate)
        if current is not None and _same(pair, current):
            return self._result(Reason.UNCHANGED, errors), self._confirmed(current)
        return self._result(Reason.ADOPTED, errors), pair

    def _judge(self, errors: _Errors) -> Reason | None:
        """Return why the candidate may not predict; None where it may."""
        if errors.candidate is None:
            return Reason.NOTHING_FITTED
        if errors.candidate > self._settings.maximum_error:
            return Reason.HOLD_OUT_ERROR
        for other in (errors.current, errors.prior):
            if other is not None and self._is_worse(errors.candidate, other):
                return Reason.NO_BETTER
        return None

    def _is_worse(self, error: float, other: float) -> bool:
        return error > other * (1.0 + self._settings.tolerance)

    def _refuse(self, reason: Reason, errors: _Errors) -> tuple[PairResult, FittedPair | None]:
        if self._current is None or errors.current is None:
            return self._result(reason, errors), None
        if errors.prior is not None and self._is_worse(errors.current, errors.prior):
            return self._result(Reason.REVERTED, errors), None
        if errors.current <= self._settings.maximum_error:
            return self._result(reason, errors), self._confirmed(self._current)
        return self._keep(reason, errors)

    def _keep(self, reason: Reason, errors: _Errors) -> tuple[PairResult, FittedPair | None]:
        current = self._current
        if (
            current is not None
            and self._prior is not None
            and self._now - current.confirmed_at > self._settings.model_age
        ):
            return self._result(Reason.STALE, errors), None
        return self._result(reason, errors), current

    def _result(self, reason: Reason, errors: _Errors) -> PairResult:
        return PairResult(
            stage=self._key[0],
            pool=self._key[1],
            reason=reason,
            samples=len(self._samples),
            error=errors.candidate,
            current_error=errors.current,
            prior_error=errors.prior,
        )

    def _confirmed(self, pair: FittedPair) -> FittedPair:
        return pair.model_copy(update={"confirmed_at": self._now})

    def _regress(self, samples: Sequence[Sample], anchor: CostModel | None) -> Regression | None:
        from disagfusion.scheduling.performance.regression import regress

        return regress(
            [sample.shape for sample in samples],
            [sample.seconds for sample in samples],
            prior=anchor,
            settings=self._settings,
        )

    def _pair(self, found: Regression, error: float) -> FittedPair:
        rows = list(zip(*(sample.shape.features for sample in self._samples), strict=True))
        return FittedPair(
            seconds=found.model,
            p95_ratio=found.p95,
            median_ratio=found.median,
            spread=found.spread,
            peak_gib=self._peak(),
            samples=len(self._samples),
            error=error,
            lowest=tuple(map(min, rows)),
            highest=tuple(map(max, rows)),
            dropped=found.dropped,
            version=self._version,
            fitted_at=self._now,
            confirmed_at=self._now,
        )

    def _peak(self) -> CostModel | None:
        """Fit the peak memory, as a bound; None where the prior does better or samples are few."""
        from disagfusion.scheduling.performance.regression import PEAK, regress

        measured = [
            (sample.shape, sample.peak_bytes / _GIB)
            for sample in self._samples
            if sample.peak_bytes is not None
        ]
        if len(measured) < self._settings.minimum_samples:
            return None
        shapes, peaks = zip(*measured, strict=True)
        found = regress(
            shapes, peaks, prior=self._prior_peak, settings=self._settings, features=PEAK
        )
        if found is None or found.error > self._settings.maximum_error:
            return None
        return scaled(found.model, found.bound)


def _same(a: FittedPair, b: FittedPair) -> bool:
    return all(
        math.isclose(x, y, rel_tol=_SAME)
        for x, y in zip(
            (*a.seconds.coefficients, *_coefficients(a.peak_gib), a.p95_ratio),
            (*b.seconds.coefficients, *_coefficients(b.peak_gib), b.p95_ratio),
            strict=True,
        )
    )


def _coefficients(model: CostModel | None) -> tuple[float, ...]:
    return CostModel().coefficients if model is None else model.coefficients
