"""The three stages."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from disagfusion_operator.api.base import SET, Image, Part, PoolName, Quantity, Rule
from disagfusion_operator.api.pools import PodTemplate, Resources


class Stage(Part):
    """One stage of the pipeline.

    Attributes:
        image: Of its pods; the release's own where not given.
        pools: Where it may run; on every pool where empty.
        min_replicas: Least number of replicas on all pools together.
        max_replicas: Greatest; as many as fit where not given.
        resources: Of each pod's container; the pool's accelerator is added.
        threads: Of the processor's operations in the engine.
        slots: Inputs that may be in a pod at a time, the one that is computed included: 2 is a
            double buffer, more bridges greater jitter.
        send_slots: Outputs on their way to one peer at a time.
        shared_memory: Of a pod's /dev/shm, which holds inputs and outputs.
        pod_template: Laid over the pods.
    """

    RULES: ClassVar = (
        Rule(
            "!has(self.maxReplicas) || self.maxReplicas >= self.minReplicas",
            "maxReplicas must be at least minReplicas",
            ".maxReplicas",
        ),
    )

    image: Image | None = None
    pools: Annotated[tuple[PoolName, ...], Field(max_length=8), SET] = ()
    min_replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=10_000)] | None = None
    resources: Resources = Field(default_factory=Resources)
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    slots: Annotated[int, Field(ge=1, le=64)] = 2
    send_slots: Annotated[int, Field(ge=1, le=64)] = 2
    shared_memory: Quantity = "1Gi"
    pod_template: PodTemplate = Field(default_factory=PodTemplate)


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
