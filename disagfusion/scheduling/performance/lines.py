"""One stage on one pool, ready to predict: plain floats and a small cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter, mul

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.performance.borrow import Loan
from disagfusion.scheduling.performance.documents import FittedPair
from disagfusion.scheduling.performance.features import memory_model, scaled, seconds_model
from disagfusion.scheduling.profile import StagePool
from disagfusion.scheduling.shapes import CostModel, Shape

_MAX_CACHED = 1024
# Rounding must not put a shape outside of a range of which it is the end.
_SLACK = 1.0 + 1e-9
_KEY = attrgetter(
    "height", "width", "num_frames", "num_inference_steps", "batch_size", "sequence_length"
)


class Provenance(StrEnum):
    """On what a prediction rests."""

    PROFILE = "profile"
    """What the profile says of this stage on this pool."""
    FITTED = "fitted"
    """A fit to samples of this stage on this pool."""
    BORROWED = "borrowed"
    """What is known of this stage on another pool, times a speed factor."""
    STALE = "stale"
    """A fit that is too old, where nothing else is known."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a job will cost on one stage and pool.

    Attributes:
        seconds: Mean.
        p95_seconds: 95th percentile.
        peak_gib: Peak memory of each accelerator; None where it is not known.
        provenance: On what this rests.
        extrapolated: Whether the shape lies outside of what was sampled for the fit this rests on.
    """

    seconds: float
    p95_seconds: float
    peak_gib: float | None
    provenance: Provenance
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class Basis:
    """A model of one stage on one pool, and where it comes from.

    Attributes:
        seconds: Mean, before any correction.
        p95_ratio: 95th percentile over mean.
        median_ratio: Median over mean.
        spread: Relative deviation from predictions; 0 where it is not known.
        peak_gib: Peak memory; None where it is not known.
        provenance: Which of the kinds it is.
        fitted: The fit that it rests on, its own or the lender's.
        loan: From where it was borrowed.
    """

    seconds: CostModel
    p95_ratio: float
    median_ratio: float
    spread: float
    peak_gib: CostModel | None
    provenance: Provenance
    fitted: FittedPair | None = None
    loan: Loan | None = None

    @classmethod
    def of_profile(cls, where: StagePool) -> Basis:
        """Rest on a profile."""
        return cls(
            seconds=seconds_model(where),
            p95_ratio=where.p95_ratio,
            median_ratio=1.0,
            spread=0.0,
            peak_gib=memory_model(where),
            provenance=Provenance.PROFILE,
        )

    @classmethod
    def of_fit(cls, pair: FittedPair, where: StagePool | None, provenance: Provenance) -> Basis:
        """Rest on a fit; on the profile for the memory, where no peaks were fitted."""
        memory = memory_model(where) if where is not None else None
        return cls(
            seconds=pair.seconds,
            p95_ratio=pair.p95_ratio,
            median_ratio=pair.median_ratio,
            spread=pair.spread,
            peak_gib=pair.peak_gib or memory,
            provenance=provenance,
            fitted=pair,
        )

    def typical(self, shape: Shape) -> float:
        """Return the median seconds of a job."""
        return self.seconds.evaluate(shape) * self.median_ratio

    def extrapolates(self, row: tuple[float, ...]) -> bool:
        """Whether features lie outside of what was sampled for the fit; False without a fit."""
        pair = self.fitted
        if pair is None:
            return False
        for value, low, high in zip(row, pair.lowest, pair.highest, strict=True):
            if value * _SLACK < low or value > high * _SLACK:
                return True
        return False

    def lent(self, loan: Loan) -> Basis:
        """Rest on this one at another speed; memory has no speed."""
        return Basis(
            seconds=scaled(self.seconds, loan.factor),
            p95_ratio=self.p95_ratio,
            median_ratio=self.median_ratio,
            spread=self.spread,
            peak_gib=self.peak_gib,
            provenance=Provenance.BORROWED,
            fitted=self.fitted,
            loan=loan,
        )


class Line:
    """Predicts one stage on one pool.

    Args:
        basis: The model.
        correction: Factor from recent samples.
    """

    __slots__ = ("_cache", "_peak", "_seconds", "basis", "correction")

    def __init__(self, basis: Basis, correction: float) -> None:
        self.basis = basis
        self.correction = correction
        self._seconds = tuple(c * correction for c in basis.seconds.coefficients)
        self._peak = None if basis.peak_gib is None else basis.peak_gib.coefficients
        self._cache: dict[tuple[int, ...], Prediction] = {}

    def predict(self, shape: Shape) -> Prediction:
        """Return what a job of this shape costs."""
        key = _KEY(shape)
        known = self._cache.get(key)
        if known is None:
            known = self._evaluate(shape)
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[key] = known
        return known

    def _evaluate(self, shape: Shape) -> Prediction:
        try:
            row = shape.features
        except OverflowError as error:
            raise InvalidArgumentError("shape", "too large to predict") from error
        seconds = sum(map(mul, self._seconds, row))
        late = seconds * self.basis.p95_ratio
        peak = None if self._peak is None else sum(map(mul, self._peak, row))
        if not math.isfinite(late) or (peak is not None and not math.isfinite(peak)):
            raise InvalidArgumentError("shape", "too large to predict")
        return Prediction(seconds, late, peak, self.basis.provenance, self.basis.extrapolates(row))
