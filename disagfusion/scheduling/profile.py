"""The profile: which accelerators there are, and what each stage costs on each of them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from disagfusion.scheduling.document import (
    NO_TRUTH,
    Count,
    Document,
    Name,
    NonNegative,
    Positive,
    PositiveCount,
)
from disagfusion.scheduling.shapes import CostModel, Shape

_LEAST_SECONDS = 1e-9
_LEAST_COEFFICIENT = 1e-30
"""Rates are reciprocals of seconds, and are exact: they have to remain numbers."""


class Pool(Document):
    """Accelerators of one kind.

    Attributes:
        accelerators: How many there are.
        memory_gib: Memory of one; without it everything fits.
        cost_per_hour: Price of one, in whatever currency all pools share.
        load_gib_per_second: At which weights come from storage into the accelerator.
        start_seconds: From the decision until a process can begin to load weights.
        link_gib_per_second: At which tensors reach another accelerator; without it at once.
        load_ahead: Whether a replica that changes its stage loads the next one's weights while it
            finishes its jobs; memory must have room for both.
    """

    accelerators: Count
    memory_gib: Positive | None = None
    cost_per_hour: NonNegative = 0.0
    load_gib_per_second: Positive | None = None
    start_seconds: NonNegative = 0.0
    link_gib_per_second: Positive | None = None
    load_ahead: bool = False


class StagePool(Document):
    """What a stage costs on one pool.

    Attributes:
        seconds: Of a job whatever its shape.
        model: Of a job by its shape; in the place of `seconds`.
        p95_ratio: 95th percentile of the seconds over their mean.
        accelerators: That one replica takes.
        memory_gib: Peak on each of them: one number, or by shape.
    """

    seconds: Annotated[float, Field(ge=_LEAST_SECONDS), NO_TRUTH] | None = None
    model: CostModel | None = None
    p95_ratio: Annotated[float, Field(ge=1), NO_TRUTH] = 1.0
    accelerators: PositiveCount = 1
    memory_gib: NonNegative | CostModel | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.seconds is None) == (self.model is None):
            raise ValueError("expected one of `seconds` and `model`")
        if self.model is not None and max(self.model.coefficients) < _LEAST_COEFFICIENT:
            raise ValueError(
                f"expected a coefficient of at least {_LEAST_COEFFICIENT:g} in `model`"
            )
        return self

    def seconds_of(self, shape: Shape) -> float:
        """Return the mean seconds of a job."""
        return self.seconds if self.model is None else self.model.evaluate(shape)  # type: ignore[return-value]

    def memory_of(self, shape: Shape) -> float:
        """Return the peak memory of a job on each accelerator, in GiB."""
        if isinstance(self.memory_gib, CostModel):
            return self.memory_gib.evaluate(shape)
        return self.memory_gib or 0.0


class StageProfile(Document):
    """One stage of the pipeline.

    Attributes:
        min: Least number of replicas.
        max: Greatest number of replicas; without it as many as fit.
        weights_gib: What a replica loads before it can work.
        output_mib: What a job hands to the next stage: one number, or by shape.
        pools: Where the stage can run.
    """

    min: Count = 1
    max: Count | None = None
    weights_gib: NonNegative = 0.0
    output_mib: NonNegative | CostModel = 0.0
    pools: Annotated[dict[Name, StagePool], Field(min_length=1)]

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"expected `max` of at least `min`, which is {self.min}")
        return self

    def output_of(self, shape: Shape) -> float:
        """Return what a job of this shape hands to the next stage, in MiB."""
        if isinstance(self.output_mib, CostModel):
            return self.output_mib.evaluate(shape)
        return self.output_mib


class Monolith(Document):
    """The whole pipeline in one process, to compare with.

    Attributes:
        pool: On which accelerators.
        seconds_ratio: Of a job, over the sum of its stages' seconds on that pool.
        extra_seconds: Of a job, beside that: loading weights that do not stay, for one.
        accelerators: That one takes.
        source: Where the figures come from.
    """

    pool: Name
    seconds_ratio: Positive = 1.0
    extra_seconds: NonNegative = 0.0
    accelerators: PositiveCount = 1
    source: str = ""


class Profile(Document):
    """Accelerators, and stages in the order of the pipeline.

    Attributes:
        name: For people.
        source: Where the figures come from.
        overhead_seconds: Of a job beside its stages, which keep nobody from other jobs.
        pools: By name.
        stages: By name, in the order in which a job passes them.
        monoliths: Unsplit pipelines to compare with, such as `resident` and `offloading`.
    """

    name: str = ""
    source: str = ""
    overhead_seconds: NonNegative = 0.0
    pools: Annotated[dict[Name, Pool], Field(min_length=1)]
    stages: Annotated[dict[Name, StageProfile], Field(min_length=1)]
    monoliths: dict[Name, Monolith] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_pools(self) -> Self:
        for name, monolith in self.monoliths.items():
            missing = [s for s, stage in self.stages.items() if monolith.pool not in stage.pools]
            if missing:
                raise ValueError(
                    f"monoliths.{name}.pool: {missing[0]} has no seconds on {monolith.pool}"
                )
        for stage, profile in self.stages.items():
            for pool in profile.pools:
                if pool not in self.pools:
                    known = ", ".join(self.pools)
                    raise ValueError(
                        f"stages.{stage}.pools.{pool}: no such pool; there are: {known}"
                    )
        return self

    def fits(self, stage: str, pool: str, shape: Shape) -> bool:
        """Whether a job of this shape fits the memory of a pool that the stage can run on."""
        memory = self.pools[pool].memory_gib
        return memory is None or self.stages[stage].pools[pool].memory_of(shape) <= memory

    def load_seconds(self, stage: str, pool: str) -> float:
        """Return how long it takes from a decision until a replica can work."""
        where = self.pools[pool]
        load = self.stages[stage].weights_gib / (where.load_gib_per_second or float("inf"))
        return where.start_seconds + load
