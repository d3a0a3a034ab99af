"""What a fitting process reads and writes: one JSON document each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from disagfusion.scheduling.document import Document, Name
from disagfusion.scheduling.performance.documents import ModelDocument, SampleDocument
from disagfusion.scheduling.performance.fitting import FitResult, PairResult, fit
from disagfusion.scheduling.performance.model import PerformanceModel
from disagfusion.scheduling.performance.samples import Sample, SampleSnapshot
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.profile import Profile


class SnapshotDocument(Document):
    """A `SampleSnapshot` as it is saved and sent.

    Attributes:
        kind: Tells this document from others.
        format: Of this document.
        samples: All of them.
        regimes: Stage → pool → since when samples hold.
    """

    kind: Literal["disagfusion.dev/performance-samples"] = "disagfusion.dev/performance-samples"
    format: Literal[1] = 1
    samples: tuple[SampleDocument, ...] = ()
    regimes: dict[Name, dict[Name, float]] = Field(default_factory=dict)

    @classmethod
    def of(cls, snapshot: SampleSnapshot) -> SnapshotDocument:
        """Make the document of a snapshot."""
        regimes: dict[str, dict[str, float]] = {}
        for (stage, pool), at in snapshot.regimes.items():
            regimes.setdefault(stage, {})[pool] = at
        samples = tuple(SampleDocument.of(sample) for sample in snapshot.samples)
        return cls(samples=samples, regimes=regimes)

    def snapshot(self) -> SampleSnapshot:
        """Return the snapshot."""
        samples: tuple[Sample, ...] = tuple(document.sample() for document in self.samples)
        regimes = {
            (stage, pool): at for stage, pools in self.regimes.items() for pool, at in pools.items()
        }
        return SampleSnapshot(samples, regimes)


class FitRequest(Document):
    """What a fit needs.

    Attributes:
        kind: Tells this document from others.
        format: Of this document.
        snapshot: The samples.
        current: The model that predicts now.
        profile: The prior.
        settings: The bounds.
        now: The time, by the clock of the samples.
    """

    kind: Literal["disagfusion.dev/performance-fit-request"] = (
        "disagfusion.dev/performance-fit-request"
    )
    format: Literal[1] = 1
    snapshot: SnapshotDocument
    current: ModelDocument | None = None
    profile: Profile
    settings: PerformanceSettings = PerformanceSettings()
    now: float

    @classmethod
    def of(
        cls,
        snapshot: SampleSnapshot,
        current: PerformanceModel | None,
        profile: Profile,
        settings: PerformanceSettings,
        now: float,
    ) -> FitRequest:
        """Make the document of the arguments of `fit`."""
        return cls(
            snapshot=SnapshotDocument.of(snapshot),
            current=None if current is None else current.to_document(),
            profile=profile,
            settings=settings,
            now=now,
        )

    def answer(self) -> FitAnswer:
        """Fit.

        Raises:
            DataLossError: The current model's checksum is of another content.
        """
        current = None if self.current is None else PerformanceModel.from_document(self.current)
        result = fit(self.snapshot.snapshot(), current, self.profile, self.settings, self.now)
        return FitAnswer(model=result.model.to_document(), results=result.results)


class FitAnswer(Document):
    """What came of a fit.

    Attributes:
        kind: Tells this document from others.
        format: Of this document.
        model: The next model.
        results: For each stage and pool.
    """

    kind: Literal["disagfusion.dev/performance-fit-answer"] = (
        "disagfusion.dev/performance-fit-answer"
    )
    format: Literal[1] = 1
    model: ModelDocument
    results: tuple[PairResult, ...]

    def result(self) -> FitResult:
        """Return it as `fit` does.

        Raises:
            DataLossError: The model's checksum is of another content.
        """
        return FitResult(PerformanceModel.from_document(self.model), self.results)
