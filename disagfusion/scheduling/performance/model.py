"""The performance model: what a job will cost on each stage and pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from disagfusion.errors import NotFoundError
from disagfusion.scheduling.performance.borrow import FactorSource, borrow
from disagfusion.scheduling.performance.documents import (
    FittedPair,
    ModelDocument,
    from_json,
    to_json,
)
from disagfusion.scheduling.performance.features import scaled
from disagfusion.scheduling.performance.lines import Basis, Line, Prediction, Provenance
from disagfusion.scheduling.performance.samples import Pair
from disagfusion.scheduling.profile import Profile, StagePool
from disagfusion.scheduling.shapes import Shape

_NAME = "performance model"


@dataclass(frozen=True, slots=True)
class PairSummary:
    """The numbers of one stage on one pool, for metrics and for people.

    Attributes:
        stage: Name of the stage.
        pool: Name of the pool.
        provenance: On what predictions rest.
        version: Of the model that first had the coefficients; 0 without a fit.
        samples: From which they were fitted.
        error: Median relative error on samples that the fit had not seen; None without a fit.
        age: Seconds since a fit last confirmed the coefficients; None without a fit.
        correction: Factor from recent samples.
        lender: Pool from which the prediction is borrowed.
        speed_factor: Seconds here over seconds there.
        factor_source: From what that factor was taken.
        stored: Samples at hand for the next fit; None where no store is at hand.
        drifted: Whether a change was confirmed that no fit has made up for; None as for `stored`.
    """

    stage: str
    pool: str
    provenance: Provenance
    version: int
    samples: int
    error: float | None
    age: float | None
    correction: float
    lender: str | None = None
    speed_factor: float | None = None
    factor_source: FactorSource | None = None
    stored: int | None = None
    drifted: bool | None = None


class PerformanceModel:
    """Predicts seconds and peak memory; nothing in it changes.

    A prediction rests on a fit; without one on the profile; without an entry there on what is
    known of the stage on another pool. It is multiplied by the correction from recent samples.

    Args:
        profile: The prior.
        pairs: What was fitted.
        corrections: Factors from recent samples, where they are not 1.
        version: Grows with each change to what was fitted.
        stale: Fits that are too old, kept for where nothing else is known.
    """

    def __init__(
        self,
        profile: Profile,
        pairs: Mapping[Pair, FittedPair] | None = None,
        corrections: Mapping[Pair, float] | None = None,
        *,
        version: int = 0,
        stale: frozenset[Pair] = frozenset(),
    ) -> None:
        self.profile = profile
        self.version = version
        self._pairs = dict(pairs or {})
        self._corrections = dict(corrections or {})
        self._stale = stale
        self._lines: dict[Pair, Line] = {}

    @property
    def pairs(self) -> dict[Pair, FittedPair]:
        """What was fitted, too old or not."""
        return dict(self._pairs)

    @property
    def corrections(self) -> dict[Pair, float]:
        """Factors from recent samples."""
        return dict(self._corrections)

    def predict(self, stage: str, pool: str, shape: Shape) -> Prediction:
        """Predict what a job costs.

        Raises:
            NotFoundError: The stage is known on no pool at all.
            InvalidArgumentError: The shape is too large for a number.
        """
        line = self._lines.get((stage, pool))
        if line is None:
            line = self._line(stage, pool)
        return line.predict(shape)

    def basis(self, stage: str, pool: str) -> Basis:
        """Return on what predictions rest, before any correction.

        Raises:
            NotFoundError: The stage is known on no pool at all.
        """
        return self._line(stage, pool).basis

    def knows(self, stage: str) -> bool:
        """Whether something can be predicted for a stage."""
        return stage in self.profile.stages or any(what == stage for what, _ in self._pairs)

    def prior(self, stage: str, pool: str) -> Basis | None:
        """Return what would be known of a pair without its own fit; None if nothing."""
        return self._without_fit(stage, pool, set(self._pairs) - self._stale - {(stage, pool)})

    def as_of(self, now: float, age: float) -> PerformanceModel:
        """Return the model without fits that nothing has confirmed for longer than an age."""
        stale = frozenset(key for key, pair in self._pairs.items() if now - pair.confirmed_at > age)
        if stale == self._stale:
            return self
        return PerformanceModel(
            self.profile, self._pairs, self._corrections, version=self.version, stale=stale
        )

    def with_corrections(self, corrections: Mapping[Pair, float]) -> PerformanceModel:
        """Return the model with some other factors; a factor of 1 is none."""
        changed = {
            key for key, factor in corrections.items() if factor != self._corrections.get(key, 1.0)
        }
        if not changed:
            return self
        merged = {**self._corrections, **corrections}
        model = PerformanceModel(
            self.profile,
            self._pairs,
            {key: factor for key, factor in merged.items() if factor != 1.0},
            version=self.version,
            stale=self._stale,
        )
        # What did not change keeps its cache.
        model._lines = {key: line for key, line in self._lines.items() if key not in changed}
        return model

    def summary(self, now: float) -> list[PairSummary]:
        """Return the numbers of every stage and pool of the profile, the fits and corrections."""
        known = {
            (stage, pool) for stage, what in self.profile.stages.items() for pool in what.pools
        }
        known.update(self._pairs)
        known.update(key for key in self._corrections if self.knows(key[0]))
        return [self.summary_of(stage, pool, now) for stage, pool in sorted(known)]

    def summary_of(self, stage: str, pool: str, now: float) -> PairSummary:
        """Return the numbers of one stage on one pool.

        Raises:
            NotFoundError: The stage is known on no pool at all.
        """
        line = self._line(stage, pool)
        basis = line.basis
        own = self._pairs.get((stage, pool))
        if basis.provenance not in (Provenance.FITTED, Provenance.STALE):
            own = None
        return PairSummary(
            stage=stage,
            pool=pool,
            provenance=basis.provenance,
            version=own.version if own else 0,
            samples=own.samples if own else 0,
            error=own.error if own else None,
            age=now - own.confirmed_at if own else None,
            correction=line.correction,
            lender=basis.loan.pool if basis.loan else None,
            speed_factor=basis.loan.factor if basis.loan else None,
            factor_source=basis.loan.source if basis.loan else None,
        )

    def to_profile(self) -> Profile:
        """Return the profile with what was fitted, and the corrections, in the place of the prior.

        A stage gets no pool that it did not have: the profile says where a stage may run.
        """
        stages = {
            stage: what.model_copy(
                update={
                    "pools": {
                        pool: self._entry(stage, pool, where) for pool, where in what.pools.items()
                    }
                }
            )
            for stage, what in self.profile.stages.items()
        }
        return self.profile.model_copy(update={"stages": stages})

    def to_document(self) -> ModelDocument:
        """Return the model as a document that can be saved and sent."""
        pairs: dict[str, dict[str, FittedPair]] = {}
        for (stage, pool), pair in sorted(self._pairs.items()):
            pairs.setdefault(stage, {})[pool] = pair
        corrections: dict[str, dict[str, float]] = {}
        for (stage, pool), factor in sorted(self._corrections.items()):
            corrections.setdefault(stage, {})[pool] = factor
        return ModelDocument(
            version=self.version, profile=self.profile, pairs=pairs, corrections=corrections
        ).sealed()

    @classmethod
    def from_document(
        cls, document: ModelDocument, *, profile: Profile | None = None
    ) -> PerformanceModel:
        """Take a model from a document.

        Args:
            document: From `to_document`.
            profile: In the place of the document's, as where the configuration has changed since.

        Raises:
            DataLossError: The checksum is of another content.
        """
        document.verify()
        return cls(
            profile or document.profile,
            _flat(document.pairs),
            _flat(document.corrections),
            version=document.version,
        )

    def to_json(self) -> str:
        """Return the model's document as JSON."""
        return to_json(self.to_document())

    @classmethod
    def from_json(
        cls, text: str | bytes, *, name: str = _NAME, profile: Profile | None = None
    ) -> PerformanceModel:
        """Take a model from a file.

        Args:
            text: The file's content.
            name: The file's name, for errors.
            profile: As for `from_document`.

        Raises:
            InvalidArgumentError: It is no such document, or a field is wrong.
            DataLossError: The checksum is of another content.
        """
        return cls.from_document(from_json(ModelDocument, text, name=name), profile=profile)

    def _line(self, stage: str, pool: str) -> Line:
        line = self._lines.get((stage, pool))
        if line is None:
            basis = self._choose(stage, pool)
            line = Line(basis, self._corrections.get((stage, pool), 1.0))
            self._lines[stage, pool] = line
        return line

    def _choose(self, stage: str, pool: str) -> Basis:
        pair = self._pairs.get((stage, pool))
        if pair is not None and (stage, pool) not in self._stale:
            return Basis.of_fit(pair, self._profile_entry(stage, pool), Provenance.FITTED)
        known = self._without_fit(stage, pool, set(self._pairs) - self._stale)
        if known is not None:
            return known
        if pair is not None:
            return Basis.of_fit(pair, None, Provenance.STALE)
        known = self._without_fit(stage, pool, set(self._pairs))
        if known is None:
            raise NotFoundError(f"nothing is known of the stage {stage!r} on any pool")
        return known

    def _without_fit(self, stage: str, pool: str, usable: set[Pair]) -> Basis | None:
        where = self._profile_entry(stage, pool)
        if where is not None:
            return Basis.of_profile(where)
        fitted = {key: pair for key, pair in self._pairs.items() if key in usable}
        loan = borrow(stage, pool, self.profile, fitted)
        if loan is None:
            return None
        there = self._profile_entry(stage, loan.pool)
        pair = fitted.get((stage, loan.pool))
        if pair is not None:
            return Basis.of_fit(pair, there, Provenance.FITTED).lent(loan)
        assert there is not None
        return Basis.of_profile(there).lent(loan)

    def _profile_entry(self, stage: str, pool: str) -> StagePool | None:
        what = self.profile.stages.get(stage)
        return None if what is None else what.pools.get(pool)

    def _entry(self, stage: str, pool: str, where: StagePool) -> StagePool:
        line = self._line(stage, pool)
        if line.basis.provenance is not Provenance.PROFILE:
            return StagePool(
                model=scaled(line.basis.seconds, line.correction),
                p95_ratio=line.basis.p95_ratio,
                accelerators=where.accelerators,
                memory_gib=line.basis.peak_gib or where.memory_gib,
            )
        if line.correction == 1.0:
            return where
        if where.model is None:
            return where.model_copy(update={"seconds": where.seconds_of(Shape()) * line.correction})
        return where.model_copy(update={"model": scaled(where.model, line.correction)})


def _flat(nested: Mapping[str, Mapping[str, Any]]) -> dict[Pair, Any]:
    return {(stage, pool): value for stage, of in nested.items() for pool, value in of.items()}
