"""Making a `PipelineSpec` from a model's index and configurations; no weights are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.blocks import Plan, StagedBlocks
from disagfusion.pipeline.components import (
    build_pipe,
    guidance_name,
    guiders_of,
    haunt,
    make_ghosts,
    stage_family,
)
from disagfusion.pipeline.families import family_of
from disagfusion.pipeline.model_files import ModelIndex, read_index
from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.spec import PipelineSpec, Workflow
from disagfusion.pipeline.stages import Stage

# What only a caller in the same process can give: tensors, objects, and the form of the result.
_INTERNAL_ENDINGS = ("latents", "embeds", "embeds_mask", "_kwargs", "_fields")
_INTERNAL = frozenset({"generator", "output_type", "dtype", "batch_size"})

_SPATIAL = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
_TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")

ServedWorkflow = tuple[str, Mapping[str, Any], Plan]
"""A workflow's name, what selects it, and what runs for it."""


def describe(model: str, options: LoadOptions | None = None) -> PipelineSpec:
    """Return what a model is and what it accepts.

    Args:
        model: Local directory in diffusers' layout, or hub id.
        options: `revision`, `local_files_only` and `workflows` apply.

    Raises:
        FailedPreconditionError: The model is missing or damaged.
        InvalidArgumentError: `options.workflows` names one that the model does not have.
    """
    options = options or LoadOptions()
    index = read_index(model, options)
    family, cls, staged = stage_family(index)
    ghosts = make_ghosts(cls, staged.blocks, index, options)
    workflows = served(family, staged, index, options)
    return make_spec(family, cls, staged, index, ghosts, workflows)


def make_spec(
    family: str,
    cls: Any,
    staged: StagedBlocks,
    index: ModelIndex,
    ghosts: Mapping[str, Any],
    served_workflows: list[ServedWorkflow],
) -> PipelineSpec:
    """Return the spec of a model whose blocks have been cut; see `describe`."""
    pipe = build_pipe(cls, staged.blocks, staged.blocks, index)
    haunt(pipe, ghosts, own=())
    guiders = guiders_of(pipe.components) | guiders_of(ghosts)
    workflows = tuple(
        Workflow(name=name, requires=dict(requires), inputs=_inputs(staged, plan, guiders))
        for name, requires, plan in served_workflows
    )
    spatial = next((int(getattr(pipe, n)) for n in _SPATIAL if hasattr(type(pipe), n)), 1)
    temporal = next((int(getattr(pipe, n)) for n in _TEMPORAL if hasattr(type(pipe), n)), 1)
    lengths = [p.default for p in staged.inputs if p.name == "max_sequence_length"]
    return PipelineSpec(
        family=family,
        class_name=str(index.content.get("_class_name")),
        version=index.version,
        output=_output(plan for _, _, plan in served_workflows),
        workflows=workflows,
        defaults={**_defaults(staged, pipe, guiders), **index.preset},
        preset=index.preset,
        size_multiple=spatial * _patch(family, pipe),
        frames_multiple=temporal,
        max_sequence_length=lengths[0] if lengths and isinstance(lengths[0], int) else None,
    )


def served(
    family: str, staged: StagedBlocks, index: ModelIndex, options: LoadOptions
) -> list[ServedWorkflow]:
    """Return the workflows that a model can do: name, what selects it, and its plan.

    Raises:
        InvalidArgumentError: `options.workflows` names one that is not among them.
    """
    hidden = family_of(family).hidden_workflows
    planned = [
        (name, requires, staged.plan(requires)) for name, requires in workflows_of(staged.blocks)
    ]
    found = [
        (workflow_name(name, requires, plan), requires, plan)
        for name, requires, plan in planned
        if not any(part in name for part in hidden)
    ]
    found = [entry for entry in found if _mentioned(entry[2], index)]
    unknown = set(options.workflows) - {name for name, _, _ in found}
    if unknown:
        raise InvalidArgumentError(
            "workflows",
            f"the model does not have {', '.join(sorted(unknown))}",
            expected=f"some of {', '.join(name for name, _, _ in found)}",
        )
    return [entry for entry in found if not options.workflows or entry[0] in options.workflows]


def workflows_of(blocks: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a family's workflows, with what selects each; the name may be empty."""
    mapping = getattr(blocks, "_workflow_map", None)
    if mapping is None:
        required = {p.name: True for p in blocks.inputs if p.required and p.name}
        yield "", {"prompt": True, **required}
        return
    for name, requires in mapping.items():
        # Some workflows can be selected in several ways.
        for variant in requires if isinstance(requires, tuple) else (requires,):
            yield name, variant


def workflow_name(name: str, requires: Mapping[str, Any], plan: Plan) -> str:
    """Return a workflow's name; the only one of a family that has none is named as others are."""
    return name or f"{'image' if 'image' in requires else 'text'}2{_output([plan])}"


def _mentioned(plan: Plan, index: ModelIndex) -> bool:
    """Whether the index mentions all that a workflow loads.

    A component that is mentioned as null is one that this model does without.
    """
    return all(
        spec.name in index.content
        for blocks in plan.blocks.values()
        for block in blocks
        for spec in block.expected_components
        if spec.default_creation_method == "from_pretrained"
    )


def _inputs(staged: StagedBlocks, plan: Plan, guiders: Mapping[str, Any]) -> tuple[str, ...]:
    read = plan.reads[Stage.ENCODER].names
    names = [
        p.name
        for p in staged.inputs
        if p.name in read and p.name not in _INTERNAL and not p.name.endswith(_INTERNAL_ENDINGS)
    ]
    names += [guidance_name(name) for name in guiders]
    return tuple(dict.fromkeys(names))


def _defaults(
    staged: StagedBlocks, pipe: Any, guiders: Mapping[str, Any]
) -> dict[str, int | float | str | bool]:
    defaults: dict[str, int | float | str | bool] = {
        p.name: p.default
        for p in staged.inputs
        if isinstance(p.default, (bool, int, float, str)) and p.name not in _INTERNAL
    }
    for name in ("height", "width", "num_frames"):
        value = getattr(pipe, f"default_{name}", None)
        if isinstance(value, int) and name not in defaults:
            defaults[name] = value
    for name, guider in guiders.items():
        scale = getattr(guider, "guidance_scale", None)
        if isinstance(scale, (int, float)):
            defaults.setdefault(guidance_name(name), scale)
    return defaults


def _patch(family: str, pipe: Any) -> int:
    known = family_of(family).patch
    if known is not None:
        return known
    for name in ("transformer", "unet"):
        config = getattr(getattr(pipe, name, None), "config", None)
        patch = getattr(config, "patch_size", None)
        if isinstance(patch, (list, tuple)) and patch:
            return int(patch[-1])
        if isinstance(patch, int):
            return patch
    return 1


def _output(plans: Iterable[Plan]) -> Literal["image", "video", "audio"]:
    names = {name for plan in plans for name in plan.outputs}
    if names & {"videos", "video"}:
        return "video"
    return "image" if "images" in names else "audio"
