"""Which components each stage of a model loads, from its index alone.

What diffusers' blocks say about it is in `stage_components.json`; `tools/generate_components.py`
makes it, because asking diffusers itself would mean importing it, which takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from disagfusion.errors import FailedPreconditionError
from disagfusion.pipeline.model_files import ModelIndex, damaged
from disagfusion.pipeline.stages import Stage

TABLE = Path(__file__).with_name("stage_components.json")


class UnknownPipelineError(FailedPreconditionError):
    """The table has no such pipeline class."""

    default_reason = "PIPELINE_UNKNOWN"


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def stage_components(
    index: ModelIndex, stage: Stage, workflows: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the names of the components that a stage loads, in the index's order.

    Args:
        index: The model's.
        stage: Which stage.
        workflows: Only what these need; empty means all that the model can do.

    Raises:
        UnknownPipelineError: diffusers did not have this pipeline when the table was made.
        FailedPreconditionError: The index names no class, or the model has none of the workflows.
    """
    name = index.content.get("_class_name")
    if not isinstance(name, str):
        raise damaged(index.model, "the index has no _class_name")
    table = _table()
    pipelines = [name] if index.modular else table["classes"].get(name, [])
    if not pipelines or not all(pipeline in table["pipelines"] for pipeline in pipelines):
        raise UnknownPipelineError(
            f"model {index.model}: it is not known which components a stage of {name} needs; "
            "fetch all of them"
        )
    found = [
        workflow
        for pipeline in pipelines
        for workflow in table["pipelines"][pipeline]
        if all(component in index.content for component in workflow["mentions"])
    ]
    served = [one for one in found if not workflows or one["name"] in workflows]
    if not served:
        known = ", ".join(sorted({one["name"] for one in found})) or "none that is known"
        raise damaged(index.model, f"it has none of the workflows asked for, but {known}")
    needed = {component for workflow in served for component in workflow[stage.value]}
    return tuple(name for name in index.content if name in needed and name in index.components)
