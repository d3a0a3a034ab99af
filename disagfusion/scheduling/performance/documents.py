"""The performance model as a file: what a fit found, with a checksum."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, model_validator

from disagfusion.errors import DataLossError, InvalidArgumentError
from disagfusion.scheduling.document import (
    Count,
    Document,
    Name,
    NonNegative,
    Positive,
    PositiveCount,
    validate,
)
from disagfusion.scheduling.performance.samples import Sample
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import FEATURES, CostModel, Shape

D = TypeVar("D", bound=Document)

FeatureRow = Annotated[
    tuple[NonNegative, ...], Field(min_length=len(FEATURES), max_length=len(FEATURES))
]


class FittedPair(Document):
    """What was fitted for one stage on one pool.

    Attributes:
        seconds: Mean seconds of a job.
        p95_ratio: 95th percentile of observed over predicted seconds, at least 1.
        median_ratio: Their median; below 1 where some jobs take much longer than most.
        spread: Their robust relative deviation: 1.4826 times the median distance of the logarithms
            from their median.
        peak_gib: Peak memory of each accelerator that 99 % of the samples stayed within.
        samples: From which all this was fitted.
        error: Median relative error on samples that the fit had not seen.
        lowest: Least value of each feature among the samples.
        highest: Greatest value of each feature among the samples.
        dropped: Features left out that the samples could not tell from the others.
        version: Of the model that first had these coefficients.
        fitted_at: When they were fitted.
        confirmed_at: When a later fit last found nothing better; at first `fitted_at`.
    """

    seconds: CostModel
    p95_ratio: Annotated[float, Field(ge=1)]
    median_ratio: Positive = 1.0
    spread: NonNegative = 0.0
    peak_gib: CostModel | None = None
    samples: PositiveCount
    error: NonNegative
    lowest: FeatureRow
    highest: FeatureRow
    dropped: tuple[str, ...] = ()
    version: PositiveCount
    fitted_at: float
    confirmed_at: float

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name, model in (("seconds", self.seconds), ("peak_gib", self.peak_gib)):
            if model is not None and not any(model.coefficients):
                raise ValueError(f"expected a positive coefficient in `{name}`")
        return self


class SealedDocument(Document):
    """A document that can tell whether it was damaged.

    Attributes:
        checksum: SHA-256 of all the rest.
    """

    checksum: str = ""

    def sealed(self) -> Self:
        """Return the same with the checksum that belongs to it."""
        return self.model_copy(update={"checksum": self._digest()})

    def verify(self) -> None:
        """Check the checksum.

        Raises:
            DataLossError: It is of another content.
        """
        if self.checksum != self._digest():
            raise DataLossError(
                "the checksum is of another content; the file is damaged",
                reason="CHECKSUM_MISMATCH",
            )

    def _digest(self) -> str:
        content = self.model_dump(mode="json", exclude={"checksum"}, exclude_none=True)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class ModelDocument(SealedDocument):
    """A `PerformanceModel` as it is saved and sent.

    Attributes:
        kind: Tells this document from others.
        format: Of this document.
        version: Of the model; grows with each change.
        profile: The prior.
        pairs: Stage → pool → what was fitted.
        corrections: Stage → pool → factor from recent samples.
    """

    kind: Literal["disagfusion.dev/performance-model"] = "disagfusion.dev/performance-model"
    format: Literal[1] = 1
    version: Count
    profile: Profile
    pairs: dict[Name, dict[Name, FittedPair]] = Field(default_factory=dict)
    corrections: dict[Name, dict[Name, Positive]] = Field(default_factory=dict)


class SampleDocument(Document):
    """A sample that was kept, as it is saved and sent; the fields are those of `Sample`."""

    stage: Name
    pool: Name
    shape: Shape
    seconds: Positive
    peak_bytes: PositiveCount | None = None
    at: float

    @classmethod
    def of(cls, sample: Sample) -> SampleDocument:
        """Make the document of a sample."""
        return cls(
            stage=sample.stage,
            pool=sample.pool,
            shape=Shape(**{name: getattr(sample.shape, name) for name in Shape.model_fields}),
            seconds=sample.seconds,
            peak_bytes=sample.peak_bytes,
            at=sample.at,
        )

    def sample(self) -> Sample:
        """Return the sample."""
        return Sample(self.stage, self.pool, self.shape, self.seconds, self.peak_bytes, self.at)


def to_json(document: BaseModel) -> str:
    """Return a document as one line of JSON; every number reads back as it was."""
    return document.model_dump_json(exclude_none=True)


def from_json(kind: type[D], text: str | bytes, *, name: str) -> D:
    """Read a document from JSON.

    Args:
        kind: What it must be.
        text: The file's content.
        name: The file's name, for errors.

    Raises:
        InvalidArgumentError: It is not JSON, or another document, or a field is wrong.
    """
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(name, f"{error}", expected="JSON") from error
    return validate(kind, value, name=name)
