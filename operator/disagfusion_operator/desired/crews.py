"""The pods of a pipeline's stages: those of one stage on a pool, or those that change theirs."""

from __future__ import annotations

from dataclasses import dataclass

from disagfusion_operator.api.base import STAGES
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.pods import Worker
from disagfusion_operator.desired.inputs import Inputs
from disagfusion_operator.desired.names import FLEX

_LONGEST = "dit"
"""The stage that most pods have."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The pods of one Deployment.

    Attributes:
        component: Their stage, or `flex`.
        pool: Where they run.
        stages: That they can have, in order.
        wanted: What people say of them.
        image: Of their container.
        inputs: Of the pipeline.
    """

    component: str
    pool: str
    stages: tuple[str, ...]
    wanted: Worker
    image: str
    inputs: Inputs

    @property
    def first(self) -> str:
        """The stage with which they begin."""
        return first_stage(self.stages)

    @property
    def job_seconds(self) -> float:
        """How long the longest job takes, as predicted."""
        return max(self.inputs.job_seconds(stage, self.pool) for stage in self.stages)

    @property
    def load_seconds(self) -> float:
        """How long a pod takes from its start until it can work, as predicted; 0: not known."""
        return max(self.inputs.load_seconds(stage, self.pool) for stage in self.stages)

    @property
    def release_seconds(self) -> int:
        """How long a pod waits at its end for its outputs to be taken."""
        return max(self.inputs.release_seconds(stage, self.pool) for stage in self.stages)

    @property
    def grace_seconds(self) -> int:
        """How long a pod may take to finish what it has."""
        return self.inputs.grace_seconds(self.wanted.slots * self.job_seconds, self.release_seconds)


def first_stage(stages: tuple[str, ...]) -> str:
    """Return the stage with which pods begin that can have several.

    That of most, so that most need not change at all. It depends on nothing that changes, since
    another template would replace all pods.
    """
    return _LONGEST if _LONGEST in stages else stages[0]


def stages_on(spec: Spec, pool: str) -> tuple[str, ...]:
    """Return the stages that may run on a pool, in order."""
    return tuple(stage for stage in STAGES if pool in spec.pools_of(stage))


def crews(inputs: Inputs) -> list[Crew]:
    """Return the pods of all Deployments of stages, those of the first stage first."""
    spec = inputs.spec
    found: dict[tuple[str, str], Crew] = {}
    for stage, pool in spec.places():
        flex = spec.pools[pool].flex
        if flex is None:
            wanted, image = inputs.stage(stage), inputs.image(stage)
            found[stage, pool] = Crew(stage, pool, (stage,), wanted, image, inputs)
        elif (FLEX, pool) not in found:
            image = inputs.flex_image(pool)
            found[FLEX, pool] = Crew(FLEX, pool, stages_on(spec, pool), flex, image, inputs)
    return list(found.values())
