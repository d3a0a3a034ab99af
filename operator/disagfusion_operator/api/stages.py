"""The three stages."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from disagfusion_operator.api.base import SET, Part, PoolName, Rule
from disagfusion_operator.api.pods import Worker


class Stage(Worker):
    """One stage of the pipeline.

    Attributes:
        pools: Where it may run; on every pool where empty.
        min_replicas: Least number of replicas on all pools together.
        max_replicas: Greatest; as many as fit where not given.
    """

    RULES: ClassVar = (
        Rule(
            "!has(self.maxReplicas) || self.maxReplicas >= self.minReplicas",
            "maxReplicas must be at least minReplicas",
            ".maxReplicas",
        ),
    )

    pools: Annotated[tuple[PoolName, ...], Field(max_length=8), SET] = ()
    min_replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=10_000)] | None = None


class Stages(Part):
    """All stages, in the order in which a job passes them.

    Attributes:
        encoder: Prompt and images to conditioning.
        dit: The denoising loop.
        decoder: Latents to pictures and videos.
    """

    encoder: Stage = Field(default_factory=Stage)
    dit: Stage = Field(default_factory=Stage)
    decoder: Stage = Field(default_factory=Stage)

    def items(self) -> tuple[tuple[str, Stage], ...]:
        """Return names and stages."""
        return (("encoder", self.encoder), ("dit", self.dit), ("decoder", self.decoder))
