"""All families of diffusers' table: can they be cut, and is there a case for them?"""

from __future__ import annotations

from typing import Any

from .cases import CASES

# Distilled and other variants are chosen by what a model's index says.
_INDEXES: tuple[dict[str, Any], ...] = (
    {},
    {"boundary_ratio": 0.9},
    {"is_distilled": True},
    {"is_distilled": False},
    {"sample_sigmas": [1.0]},
)


def cut_all() -> list[dict[str, Any]]:
    """Cut every family's blocks; no model is needed for it."""
    import diffusers
    from diffusers.modular_pipelines.modular_pipeline import MODULAR_PIPELINE_MAPPING

    covered = {case.modular for case in CASES.values()}
    rows, seen = [], set()
    for key, choose in MODULAR_PIPELINE_MAPPING.items():
        for name in sorted({choose(index) for index in _INDEXES}):
            if name not in seen:
                seen.add(name)
                rows.append({"family": key, "class": name, "covered": name in covered})
                rows[-1] |= _cut(getattr(diffusers, name))
    return rows


def _cut(cls: Any) -> dict[str, Any]:
    import diffusers

    from disagfusion.pipeline.blocks import StagedBlocks
    from disagfusion.pipeline.describe import workflows_of
    from disagfusion.pipeline.stages import Stage

    try:
        staged = StagedBlocks(getattr(diffusers, cls.default_blocks_name)())
        plans = [staged.plan(requires) for _, requires in workflows_of(staged.blocks)]
    except ValueError as error:
        return {"error": str(error)}
    declared = {
        stage.value: sorted(
            {
                spec.name
                for plan in plans
                for block in plan.blocks[stage]
                for spec in block.expected_components
                if spec.default_creation_method == "from_pretrained"
            }
        )
        for stage in Stage
    }
    return {"workflows": len(plans), "components": declared}
