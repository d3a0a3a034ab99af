"""What an emulated accelerator takes for what: seconds, memory and bytes. Pure but for chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.pipeline.stages import Stage
from disagfusion.scheduling.profile import Profile, StagePool
from disagfusion.scheduling.shapes import Shape
from disagfusion.stage.devices import emulated_device

GIB = 1 << 30
MIB = 1 << 20
LEAST_BYTES = 64
"""Of an output: where a profile says nothing of it there is still something to verify."""


class EmulatedOutOfMemoryError(MemoryError):
    """A job needs more memory than the accelerator that is emulated has."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An accelerator of a pool, as a profile describes it.

    Attributes:
        profile: The profile.
        pool: One of its pools.
        time_scale: Seconds taken for one second of the profile; outputs are scaled as well, so
            that transfers take the same share of the time over a link that is not scaled.
        time_noise: A job's seconds vary evenly by up to this share of them.
    """

    profile: Profile
    pool: str
    time_scale: float = 1.0
    time_noise: float = 0.0

    def check_names(self, stages: Sequence[Stage]) -> None:
        """Judge whether the profile says what stages cost here.

        Raises:
            InvalidArgumentError: It has no such pool or stage, or not this stage on this pool.
        """
        profile = self.profile
        missing = [stage.value for stage in Stage if stage.value not in profile.stages]
        if missing:
            raise InvalidArgumentError(
                "profile",
                f"has no stage {' and no stage '.join(missing)}",
                expected=f"the stages {', '.join(Stage)}",
            )
        if self.pool not in profile.pools:
            raise InvalidArgumentError(
                "device",
                f"the profile has no pool {self.pool!r}",
                expected=" or ".join(emulated_device(pool) for pool in profile.pools),
            )
        for stage in stages:
            pools = profile.stages[stage].pools
            if self.pool not in pools:
                raise InvalidArgumentError(
                    "device",
                    f"the profile does not say how fast the {stage} is on {self.pool}",
                    expected=" or ".join(emulated_device(pool) for pool in pools),
                )

    def check_weights(self, stages: Sequence[Stage]) -> None:
        """Judge whether the weights of stages fit beside each other.

        Raises:
            FailedPreconditionError: They do not.
        """
        memory = self.profile.pools[self.pool].memory_gib
        weights = sum(self._weights(stage) for stage in stages)
        if memory is not None and weights > memory:
            raise FailedPreconditionError(
                f"the weights of the {' and the '.join(stages)} take {weights:.4g} GiB on each"
                f" accelerator; an emulated {self.pool} has {memory:.4g} GiB",
                reason="WEIGHTS_TOO_LARGE",
            )

    def load_seconds(self, stage: Stage) -> float:
        """Return how long it takes until a stage's engine can work, its start included."""
        return self.time_scale * self.profile.load_seconds(stage, self.pool)

    def service_seconds(self, stage: Stage, shape: Shape, job_id: str) -> float:
        """Return how long a job takes; the same job always takes the same time."""
        seconds = self.time_scale * self._on(stage).seconds_of(shape)
        if self.time_noise:
            # Of a text's digest: the same in every process.
            chance = Random(f"{job_id}/{stage}")  # noqa: S311 -- no secret
            seconds *= chance.uniform(1 - self.time_noise, 1 + self.time_noise)
        return seconds

    def check_memory(self, stage: Stage, shape: Shape) -> None:
        """Judge whether a job fits beside the stage's weights, which its peak includes.

        Raises:
            EmulatedOutOfMemoryError: It does not.
        """
        memory = self.profile.pools[self.pool].memory_gib
        peak = max(self._on(stage).memory_of(shape), self._weights(stage))
        if memory is not None and peak > memory:
            raise EmulatedOutOfMemoryError(
                f"emulated {self.pool} out of memory: the {stage} of a job of this shape takes"
                f" {peak:.4g} GiB, there are {memory:.4g} GiB"
            )

    def output_bytes(self, stage: Stage, shape: Shape) -> int:
        """Return how many bytes a job hands to the next stage."""
        mebibytes = self.time_scale * self.profile.stages[stage].output_of(shape)
        return max(LEAST_BYTES, round(mebibytes * MIB))

    def accelerators(self, stage: Stage) -> int:
        """Return how many accelerators a replica of a stage takes."""
        return self._on(stage).accelerators

    @property
    def link_bytes_per_second(self) -> float | None:
        """At which outputs reach another accelerator; None for as fast as they do."""
        link = self.profile.pools[self.pool].link_gib_per_second
        return None if link is None else link * GIB

    def _on(self, stage: Stage) -> StagePool:
        return self.profile.stages[stage].pools[self.pool]

    def _weights(self, stage: Stage) -> float:
        """Of a stage on each accelerator of a replica, in GiB."""
        return self.profile.stages[stage].weights_gib / self._on(stage).accelerators
