"""Generate the table of the components that each stage loads, from diffusers' modular blocks.

Usage: python tools/generate_components.py [--check]

The table is disagfusion/pipeline/stage_components.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from typing import Any

import diffusers
from diffusers.modular_pipelines.modular_pipeline import MODULAR_PIPELINE_MAPPING
from diffusers.pipelines.auto_pipeline import SUPPORTED_TASKS_MAPPINGS

from disagfusion.pipeline.blocks import Plan, StagedBlocks
from disagfusion.pipeline.describe import workflow_name, workflows_of
from disagfusion.pipeline.families import CLASS_TO_FAMILY, family_of
from disagfusion.pipeline.stage_components import TABLE
from disagfusion.pipeline.stages import Stage

_PRETRAINED = "from_pretrained"
# What diffusers looks at in an index to choose among the pipelines of a family.
_CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"boundary_ratio": 0.9},
    {"is_distilled": True},
    {"sample_sigmas": [1.0]},
)


def table() -> dict[str, Any]:
    """Return the table."""
    pipelines: dict[str, Any] = {}
    families: dict[str, list[str]] = {}
    for key, choose in MODULAR_PIPELINE_MAPPING.items():
        families[key] = sorted({choose(config) for config in _CONFIGURATIONS})
        for name in families[key]:
            workflows = _workflows(getattr(diffusers, name))
            if workflows is not None:
                pipelines[name] = workflows
    classes = {
        name: [pipeline for pipeline in families[family] if pipeline in pipelines]
        for name, family in _classic().items()
        if family in families
    }
    return {
        "diffusers": diffusers.__version__,
        "classes": dict(sorted(classes.items())),
        "pipelines": dict(sorted(pipelines.items())),
    }


def _classic() -> dict[str, str]:
    """Return the family of each classic pipeline class, as `components.family_key` finds it."""
    found: dict[str, str] = {}
    mappings: Any = SUPPORTED_TASKS_MAPPINGS
    for tasks in mappings:
        for family, pipeline in tasks.items():
            found.setdefault(pipeline.__name__, family)
    return found | CLASS_TO_FAMILY


def _workflows(cls: Any) -> list[dict[str, Any]] | None:
    """Return what a pipeline's workflows load, or None where it cannot be cut."""
    blocks = getattr(diffusers, cls.default_blocks_name)()
    family = blocks.model_name or cls.__name__
    try:
        staged = StagedBlocks(blocks)
    except ValueError:
        return None
    hidden = family_of(family).hidden_workflows
    found = []
    for name, requires in workflows_of(staged.blocks):
        if any(part in name for part in hidden):
            continue
        plan = staged.plan(requires)
        entry = {
            "name": workflow_name(name, requires, plan),
            "mentions": sorted(
                {name for stage in Stage for name in _declared(plan.blocks[stage], _PRETRAINED)}
            ),
            **_by_stage(plan, family),
        }
        if entry not in found:
            found.append(entry)
    return found


def _by_stage(plan: Plan, family: str) -> Mapping[str, list[str]]:
    ghosts = family_of(family).ghosts
    return {
        stage.value: sorted(_declared(plan.blocks[stage]) - ghosts.get(stage, frozenset()))
        for stage in Stage
    }


def _declared(blocks: Iterable[Any], method: str = "") -> set[str]:
    """Return the components that blocks declare; only those that are made in one way, if given.

    What is made in another way by default is loaded where the index lists it.
    """
    return {
        spec.name
        for block in blocks
        for spec in block.expected_components
        if not method or spec.default_creation_method == method
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is checked in")
    check = parser.parse_args().check
    text = json.dumps(table(), indent=1) + "\n"
    if not check:
        TABLE.write_text(text, encoding="utf-8")
    elif TABLE.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{TABLE.name} is not as generated, run 'make docs'")


if __name__ == "__main__":
    main()
