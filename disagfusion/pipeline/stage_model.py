"""One stage of a pipeline, loaded and ready to run requests."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from diffusers.modular_pipelines import LoopSequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline import PipelineState

from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.blocks import Plan, StagedBlocks
from disagfusion.pipeline.components import (
    apply_options,
    build_pipe,
    guidance_name,
    guiders_of,
    haunt,
    load_components,
    make_ghosts,
    own_components,
    stage_family,
)
from disagfusion.pipeline.describe import make_spec, served
from disagfusion.pipeline.families import Family, family_of
from disagfusion.pipeline.model_files import read_index
from disagfusion.pipeline.needs import check_needs
from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.pipeline.stages import Stage
from disagfusion.pipeline.steps import StepWatch

OnStep = Callable[[int, int], None]


def _never() -> bool:
    return False


class StageModel:
    """One stage of a pipeline with its own components; see `load`.

    Attributes:
        stage: Which stage.
        spec: What the whole pipeline accepts.
        components: Names of the components that were loaded.
    """

    def __init__(
        self,
        *,
        stage: Stage,
        spec: PipelineSpec,
        pipe: Any,
        staged: StagedBlocks,
        components: tuple[str, ...],
    ) -> None:
        self.stage = stage
        self.spec = spec
        self.components = components
        self._pipe = pipe
        self._staged = staged
        self._family: Family = family_of(spec.family)
        self._known = {p.name for p in staged.inputs} | spec.inputs | {"seed"}

    @classmethod
    def load(cls, model: str, stage: Stage, options: LoadOptions | None = None) -> StageModel:
        """Load a stage's own components.

        Args:
            model: Local directory in diffusers' layout, or hub id.
            stage: Which stage.
            options: How to load and run.

        Raises:
            FailedPreconditionError: The model is missing or damaged; the message says what.
            InvalidArgumentError: An option does not fit the model, or needs what is not installed.
        """
        options = options or LoadOptions()
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        index = read_index(model, options)
        family, pipe_class, staged = stage_family(index)
        ghosts = make_ghosts(pipe_class, staged.blocks, index, options)
        workflows = served(family, staged, index, options)
        spec = make_spec(family, pipe_class, staged, index, ghosts, workflows)
        pipe = build_pipe(pipe_class, staged.part(stage), staged.blocks, index)
        blocks = [block for _, _, plan in workflows for block in plan.blocks[stage]]
        names = own_components(pipe, blocks, index, family, stage)
        check_needs({name: pipe.get_component_spec(name).type_hint for name in names}, options)
        load_components(pipe, names, index, options)
        haunt(pipe, ghosts, own=names)
        apply_options(pipe, names, options)
        return cls(stage=stage, spec=spec, pipe=pipe, staged=staged, components=tuple(names))

    def run(
        self,
        request: Mapping[str, Any],
        inputs: Mapping[str, Any] | None = None,
        *,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] = _never,
    ) -> dict[str, Any]:
        """Run the stage for one request.

        The result is bit for bit what the unsplit modular pipeline computes with
        `generator=torch.Generator().manual_seed(seed)`.

        Args:
            request: Parameters by diffusers' names, and `seed`; the same for each stage.
            inputs: What `run` of the stage before returned; None for the first.
            on_step: Called after each denoising step with the number of steps done and the
                number of all.
            cancelled: Asked before each block and each denoising step.

        Returns:
            What later stages read; of the decoder, what the pipeline returns: `images`,
            `videos`, …

        Raises:
            InvalidArgumentError: A parameter is unknown, or `seed` is missing.
            JobCancelledError: `cancelled` returned True.
        """
        request = self.spec.complete(request)
        for name in request:
            if name not in self._known:
                raise InvalidArgumentError(name[:64], "unknown parameter")
        plan = self._staged.plan(request)
        pipe = self._request_pipe(request)
        state, initial = self._initial_state(plan, request, inputs or {})
        watch = StepWatch(on_step, cancelled)
        try:
            with torch.no_grad():
                for block in plan.blocks[self.stage]:
                    watch.check()
                    if isinstance(block, LoopSequentialPipelineBlocks):
                        block = watch.watched(block)
                    pipe, state = block(pipe, state)
        finally:
            self._forget_steps()
        if self.stage.following is None:
            return {name: state.get(name) for name in plan.outputs}
        return self._outputs(plan, state, initial, inputs or {}, request)

    def _forget_steps(self) -> None:
        """Clear what `enable_cache` keeps from step to step: the next request starts anew."""
        for name in self.components:
            component = getattr(self._pipe, name)
            if getattr(component, "is_cache_enabled", False):
                component._reset_stateful_cache()  # noqa: SLF001 - as diffusers' pipelines do

    def _request_pipe(self, request: Mapping[str, Any]) -> Any:
        """Return a pipeline for one request: modules shared, everything with a state its own."""
        pipe = copy.copy(self._pipe)
        for name, component in pipe.components.items():
            if "scheduler" in name and component is not None:
                setattr(pipe, name, copy.deepcopy(component))
        for name, guider in guiders_of(pipe.components).items():
            setattr(pipe, name, self._guider(name, guider, request))
        return pipe

    def _guider(self, name: str, guider: Any, request: Mapping[str, Any]) -> Any:
        # from_config would silently reset what the configuration lists as defaults.
        config = {k: v for k, v in guider.config.items() if not k.startswith("_")}
        config.update(self._family.guider)
        keep = self._family.encoder_keeps_guider and self.stage is Stage.ENCODER
        scale = request.get(guidance_name(name), request.get("guidance_scale"))
        if scale is not None and "guidance_scale" in config and not keep:
            config["guidance_scale"] = float(scale)
        if self._family.enabled_above is not None:
            config["enabled"] = config["guidance_scale"] > self._family.enabled_above
        return type(guider)(**config)

    def _initial_state(
        self, plan: Plan, request: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> tuple[PipelineState, dict[str, Any]]:
        if "seed" not in request:
            raise InvalidArgumentError("seed", "is missing", expected="an integer")
        initial = {p.name: request.get(p.name, p.default) for p in self._staged.inputs}
        initial["generator"] = torch.Generator().manual_seed(request["seed"])
        state: Any = PipelineState()
        for parameter in self._staged.inputs:
            state.set(parameter.name, initial[parameter.name], parameter.group)
        groups = plan.groups[self.stage]
        device = self._pipe._execution_device  # noqa: SLF001 - where the blocks compute
        for name, value in inputs.items():
            for group in groups.get(name, (None,)):
                state.set(name, _to_device(value, device), group)
        return state, initial

    def _outputs(
        self,
        plan: Plan,
        state: PipelineState,
        initial: Mapping[str, Any],
        inputs: Mapping[str, Any],
        request: Mapping[str, Any],
    ) -> dict[str, Any]:
        following = self.stage.following
        assert following is not None
        reads = plan.reads[following]
        groups = plan.groups[following]
        outputs: dict[str, Any] = {}
        for name, value in state.values.items():
            wanted = name in reads.names or any(g in reads.groups for g in groups.get(name, ()))
            if not wanted:
                continue
            if name == "generator":
                fresh = torch.Generator().manual_seed(request["seed"])
                if not torch.equal(fresh.get_state(), value.get_state()):
                    outputs[name] = value
            elif name in inputs or value is not initial.get(name):
                outputs[name] = value
        return outputs


def non_finite(outputs: Mapping[str, Any]) -> list[str]:
    """Return the names of the tensors, nested ones included, that hold NaN or infinity."""
    return sorted({name for name, tensor in _tensors("", outputs) if not _all_finite(tensor)})


def _tensors(path: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(f"{path}/{key}" if path else str(key), item)
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from _tensors(f"{path}/{position}", item)


def _all_finite(tensor: torch.Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    # float8 has no isfinite of its own.
    wide = tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
    return bool(torch.isfinite(wide).all())


def _to_device(value: Any, device: torch.device) -> Any:
    """Move the tensors of a tree; those that are there already stay the same objects."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [_to_device(item, device) for item in value]
    if isinstance(value, tuple):
        return tuple(_to_device(item, device) for item in value)
    if isinstance(value, dict):
        return {key: _to_device(item, device) for key, item in value.items()}
    return value
