"""What an emulated accelerator takes for what: seconds, memory and bytes. Pure but for chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from disagfusion.emulation.roles import Role
from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.pipeline.stages import Stage
from disagfusion.scheduling.profile import Monolith, Pool, Profile, StagePool
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

    def check_weights(self, role: Role) -> None:
        """Judge whether the weights that are here at a time fit.

        Raises:
            FailedPreconditionError: They do not.
        """
        together = [(stage,) for stage in role.stages] if _offloads(role) else [role.stages]
        for stages in together:
            weights = sum(self._weights(stage) for stage in stages)
            if self._too_much(weights):
                raise FailedPreconditionError(
                    f"the weights of {' and '.join(stages)} take {weights:.4g} GiB on each"
                    f" accelerator; an emulated {self.pool} has {self._pool.memory_gib:.4g} GiB",
                    reason="WEIGHTS_TOO_LARGE",
                )

    def check_memory(self, role: Role, shape: Shape) -> None:
        """Judge whether a job fits; a stage's peak includes its own weights.

        Raises:
            EmulatedOutOfMemoryError: It does not.
        """
        for stage in role.stages:
            beside = [] if _offloads(role) else [other for other in role.stages if other != stage]
            peak = max(self._on(stage).memory_of(shape), self._weights(stage))
            peak += sum(self._weights(other) for other in beside)
            if self._too_much(peak):
                raise EmulatedOutOfMemoryError(
                    f"emulated {self.pool} out of memory: the {stage} of a job of this shape takes"
                    f" {peak:.4g} GiB, there are {self._pool.memory_gib:.4g} GiB"
                )

    def load_seconds(self, role: Role) -> float:
        """Return how long it takes until a worker can work, the start of its process included."""
        if not role.stages:
            return 0.0
        weights = 0.0 if _offloads(role) else self._load(role.stages)
        return self.time_scale * (self._pool.start_seconds + weights)

    def service_seconds(self, role: Role, shape: Shape, job_id: str) -> float:
        """Return how long a job takes; the same job always takes the same time."""
        seconds = sum(self._stage_seconds(stage, shape, job_id) for stage in role.stages)
        measured = self._measured(role)
        if measured is not None:
            seconds = measured.seconds_ratio * seconds + measured.extra_seconds
        elif _offloads(role):
            seconds += self._load(role.stages)
        return self.time_scale * seconds

    def output_bytes(self, role: Role, shape: Shape) -> int:
        """Return how many bytes a job hands to the next worker."""
        if role.monolith is not None:
            return LEAST_BYTES
        mebibytes = self.profile.stages[role.stages[-1]].output_of(shape)
        return max(LEAST_BYTES, round(self.time_scale * mebibytes * MIB))

    def accelerators(self, role: Role) -> int:
        """Return how many accelerators a worker takes."""
        measured = self._measured(role)
        if measured is not None:
            return measured.accelerators
        return max((self._on(stage).accelerators for stage in role.stages), default=0)

    @property
    def link_bytes_per_second(self) -> float | None:
        """At which outputs reach another accelerator; None for as fast as they do."""
        link = self._pool.link_gib_per_second
        return None if link is None else link * GIB

    @property
    def _pool(self) -> Pool:
        return self.profile.pools[self.pool]

    def _on(self, stage: Stage) -> StagePool:
        return self.profile.stages[stage].pools[self.pool]

    def _measured(self, role: Role) -> Monolith | None:
        """What the profile itself says of monoliths on this pool."""
        if role.monolith is None or not role.stages:
            return None
        found = self.profile.monoliths.get(role.monolith)
        return found if found is not None and found.pool == self.pool else None

    def _stage_seconds(self, stage: Stage, shape: Shape, job_id: str) -> float:
        seconds = self._on(stage).seconds_of(shape)
        if self.time_noise:
            # Of a text's digest: the same in every process, and whatever else runs beside it.
            chance = Random(f"{job_id}/{stage}")  # noqa: S311 -- no secret
            seconds *= chance.uniform(1 - self.time_noise, 1 + self.time_noise)
        return seconds

    def _weights(self, stage: Stage) -> float:
        """Of a stage on each accelerator that it takes, in GiB."""
        return self.profile.stages[stage].weights_gib / self._on(stage).accelerators

    def _load(self, stages: Sequence[Stage]) -> float:
        """Return the seconds that the weights of stages take from storage."""
        rate = self._pool.load_gib_per_second
        return (
            sum(self.profile.stages[stage].weights_gib for stage in stages) / rate if rate else 0.0
        )

    def _too_much(self, gibibytes: float) -> bool:
        memory = self._pool.memory_gib
        return memory is not None and gibibytes > memory


def _offloads(role: Role) -> bool:
    return role.monolith == "offloading"
