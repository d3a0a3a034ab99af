"""What an emulated worker is there for: one stage, or a part of an unsplit pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from disagfusion.pipeline.stages import Stage

MonolithKind = Literal["resident", "offloading"]


@dataclass(frozen=True, slots=True)
class Role:
    """Stages that an accelerator runs one after the other for each job.

    Attributes:
        stages: Which; none for a worker that passes jobs on in no time.
        monolith: "resident" where the whole pipeline's weights are here at a time, "offloading"
            where none stay and each job loads them all; None for a stage of a split pipeline.
    """

    stages: tuple[Stage, ...]
    monolith: MonolithKind | None = None

    def __str__(self) -> str:
        if self.monolith is None:
            return " and ".join(self.stages)
        return f"{self.monolith} monolith" if self.stages else "passes on"


def role_of(stage: Stage, monolith: MonolithKind | None = None) -> Role:
    """Return the role of a stage's workers.

    In a system of monoliths the DiT's workers run everything, and the others pass jobs on, so that
    all that is around the engines stays as it is.
    """
    if monolith is None:
        return Role((stage,))
    return Role(tuple(Stage) if stage is Stage.DIT else (), monolith)
