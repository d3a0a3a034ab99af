"""Loading the components of one stage, and only those."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping
from typing import Any

import diffusers
import torch
import transformers
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.modular_pipelines.modular_pipeline import MODULAR_PIPELINE_MAPPING

from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.blocks import StagedBlocks
from disagfusion.pipeline.families import CLASS_TO_FAMILY, family_of
from disagfusion.pipeline.model_files import ModelIndex, damaged
from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.stages import Stage

# A service's log is no place for progress bars of weight files.
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
# Each new guider warns that guiders are experimental, and each request gets a new one.
logging.getLogger("diffusers.guiders.guider_utils").setLevel(logging.ERROR)


def family_key(name: str) -> str:
    """Return the key of the family that a classic pipeline's class belongs to, or nothing."""
    if name in CLASS_TO_FAMILY:
        return CLASS_TO_FAMILY[name]
    # Imports every pipeline of diffusers.
    from diffusers.pipelines.auto_pipeline import _get_model

    return _get_model(name) or ""  # type: ignore[no-untyped-call]


def pipeline_class(index: ModelIndex) -> tuple[str, Any]:
    """Return the family's key and its modular pipeline class.

    Raises:
        FailedPreconditionError: The index names no class, or one that no family has.
    """
    name = index.content.get("_class_name")
    if not isinstance(name, str):
        raise damaged(index.model, "the index has no _class_name")
    if index.modular:
        cls = getattr(diffusers, name, None)
        blocks = getattr(diffusers, getattr(cls, "default_blocks_name", None) or "", None)
        if cls is None or blocks is None:
            raise damaged(index.model, f"{name} is not a modular pipeline of diffusers")
        return blocks().model_name or name, cls
    key = family_key(name)
    if key not in MODULAR_PIPELINE_MAPPING:
        raise damaged(index.model, f"diffusers has no modular pipeline for {name}")
    return key, getattr(diffusers, MODULAR_PIPELINE_MAPPING[key](index.content))


def build_pipe(cls: Any, blocks: Any, full_blocks: Any, index: ModelIndex) -> Any:
    """Build a pipeline of some of a family's blocks, with no component loaded yet.

    Args:
        cls: The family's modular pipeline class.
        blocks: The blocks of the stage.
        full_blocks: The family's blocks: a property of the class may read the configuration value
            that a block of another stage declares.
        index: The model.
    """
    configs = {"modular_config_dict" if index.modular else "config_dict": dict(index.content)}
    pipe = cls(blocks=blocks, pretrained_model_name_or_path=index.model, **configs)
    values = {c.name: index.content.get(c.name, c.default) for c in full_blocks.expected_configs}
    pipe.register_to_config(**values)
    return pipe


def own_components(
    pipe: Any, blocks: Iterable[Any], index: ModelIndex, family: str, stage: Stage
) -> list[str]:
    """Return the names of the components that a stage has to load.

    Args:
        pipe: The stage's pipeline.
        blocks: The blocks of the stage that can run at all, conditions resolved.
        index: The model: what is not in its index cannot be loaded.
        family: The family's key.
        stage: The stage.
    """
    declared = {spec.name for block in blocks for spec in block.expected_components}
    ghosts = family_of(family).ghosts.get(stage, frozenset())
    return [
        name
        for name in pipe.pretrained_component_names
        if name in declared and name in index.components and name not in ghosts
    ]


def load_components(
    pipe: Any, names: Iterable[str], index: ModelIndex, options: LoadOptions
) -> None:
    """Load components into a pipeline and move them to their device.

    `ModularPipeline.load_components` only warns where one cannot be loaded; this raises.

    Raises:
        FailedPreconditionError: With reason MODEL_DAMAGED, naming the component.
    """
    quantization = _quantization(options)
    loaded: dict[str, Any] = {}
    for name in names:
        spec = pipe.get_component_spec(name)
        kwargs: dict[str, Any] = {"dtype": getattr(torch, options.dtype)}
        if index.directory is None:
            kwargs["local_files_only"] = options.local_files_only
            if options.revision is not None:
                kwargs["revision"] = options.revision
        if options.variant is not None:
            kwargs["variant"] = options.variant
        if quantization is not None and _is_module(spec):
            config = quantization._resolve_quant_config(  # noqa: SLF001 - the pipelines' own entry
                is_diffusers=issubclass(spec.type_hint, diffusers.ModelMixin), module_name=name
            )
            if config is not None:
                kwargs["quantization_config"] = config
        try:
            component = spec.load(**kwargs)
        except Exception as error:
            raise damaged(index.model, f"component {name} cannot be loaded: {error}") from error
        if component is None:
            raise damaged(index.model, f"component {name} cannot be loaded")
        loaded[name] = component
    pipe.register_components(**loaded)
    for component in loaded.values():
        if isinstance(component, torch.nn.Module):
            # No requires_grad_(False): torch multiplies by weights that need no gradient in
            # another way, and the last bits of a batch would differ from the unsplit pipeline's.
            if not getattr(component, "is_quantized", False):
                component.to(options.device)


def make_ghosts(
    cls: Any, full_blocks: Any, index: ModelIndex, options: LoadOptions
) -> dict[str, Any]:
    """Return the models of a pipeline without their weights, and its guiders, by name.

    A ghost has a model's configuration and structure, on torch's meta device.

    Raises:
        FailedPreconditionError: A configuration is missing or damaged.
    """
    whole = build_pipe(cls, full_blocks, full_blocks, index)
    ghosts: dict[str, Any] = {}
    for name in whole.pretrained_component_names:
        spec = whole.get_component_spec(name)
        if name not in index.components or spec.type_hint is None:
            continue
        if not issubclass(spec.type_hint, (diffusers.ModelMixin, BaseGuidance)):
            continue
        location = {"subfolder": spec.subfolder, "revision": spec.revision or options.revision}
        try:
            config = spec.type_hint.load_config(
                spec.pretrained_model_name_or_path,
                local_files_only=options.local_files_only,
                **{key: value for key, value in location.items() if value},
            )
            with torch.device("meta"):
                ghosts[name] = spec.type_hint.from_config(config)
        except Exception as error:
            raise damaged(index.model, f"configuration of {name} is unusable: {error}") from error
    return ghosts


def haunt(pipe: Any, ghosts: Mapping[str, Any], own: Container[str]) -> None:
    """Give a pipeline the ghosts of the models that it does not own.

    Properties such as `vae_scale_factor` read the configuration of a model that another stage
    owns, and without it silently assume a value. A ghost is not among `pipe.components`, so that
    no device or dtype is taken from it.
    """
    for name, ghost in ghosts.items():
        if name not in own:
            pipe._component_specs.pop(name, None)  # noqa: SLF001 - else it would count as loaded
            setattr(pipe, name, ghost)


def apply_options(pipe: Any, names: Iterable[str], options: LoadOptions) -> None:
    """Pass options on to diffusers' own functions.

    Raises:
        InvalidArgumentError: Naming the option that diffusers refuses.
    """
    modules: list[Any] = [
        m for n in names if isinstance(m := getattr(pipe, n), diffusers.ModelMixin)
    ]
    denoisers = [m for m in modules if not hasattr(m, "decode")]
    for module in modules:
        if options.vae_tiling and hasattr(module, "enable_tiling"):
            module.enable_tiling()
        if options.vae_slicing and hasattr(module, "enable_slicing"):
            module.enable_slicing()
    for module in denoisers:
        if options.attention_backend is not None:
            with _blaming("attention_backend"):
                module.set_attention_backend(options.attention_backend)
        if options.cache is not None and hasattr(module, "enable_cache"):
            with _blaming("cache"):
                title = "".join(part.title() for part in options.cache.kind.split("_"))
                module.enable_cache(getattr(diffusers, f"{title}Config")(**options.cache.kwargs))
    if options.compile is not None:
        _compile(modules, options)


def guiders_of(components: Mapping[str, Any]) -> dict[str, Any]:
    """Return the guiders among components."""
    return {name: c for name, c in components.items() if isinstance(c, BaseGuidance)}


def _compile(modules: list[Any], options: LoadOptions) -> None:
    wanted = options.compile
    assert wanted is not None
    arguments = {"mode": wanted.mode, "fullgraph": wanted.fullgraph, "dynamic": wanted.dynamic}
    for module in modules:
        with _blaming("compile"):
            if wanted.scope == "model":
                module.compile(**arguments)
            elif getattr(module, "_repeated_blocks", None):
                module.compile_repeated_blocks(**arguments)


def _quantization(options: LoadOptions) -> Any:
    wanted = options.quantization
    if wanted is None:
        return None
    with _blaming("quantization"):
        return diffusers.PipelineQuantizationConfig(  # type: ignore[attr-defined]
            quant_backend=wanted.backend,
            quant_kwargs=wanted.kwargs,
            components_to_quantize=list(wanted.components) or None,
        )


def _is_module(spec: Any) -> bool:
    return spec.type_hint is not None and issubclass(spec.type_hint, torch.nn.Module)


class _blaming:
    """Turn what diffusers raises about an option into an error that names the option."""

    def __init__(self, field: str) -> None:
        self._field = field

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, InvalidArgumentError):
            raise InvalidArgumentError(self._field, str(error)) from error


def guidance_name(guider: str) -> str:
    """Return the request's parameter for a guider: "guider_2" has "guidance_scale_2"."""
    return guider.replace("guider", "guidance_scale")


def stage_family(index: ModelIndex) -> tuple[str, Any, StagedBlocks]:
    """Return the family's key, its pipeline class and its blocks cut in three."""
    family, cls = pipeline_class(index)
    return family, cls, StagedBlocks(getattr(diffusers, cls.default_blocks_name)())
