"""What runs in the processes: making a model, the references, and one stage.

Only `run_stage` imports anything of ours. What goes from stage to stage is written to a file as
bytes; no tensor and no object is pickled.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    """Turn `{"noise": [width, height, seed]}` and the like into pictures."""
    return {name: _resolve(value) for name, value in request.items()}


def _resolve(value: Any) -> Any:
    from PIL import Image

    if isinstance(value, list):
        return [_resolve(item) for item in value]
    if isinstance(value, dict) and "noise" in value:
        width, height, seed = value["noise"]
        generator = np.random.default_rng(seed)
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    if isinstance(value, dict) and "mask" in value:
        width, height, edge = value["mask"]
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[:, edge:] = 255
        return Image.fromarray(mask)
    return value


def make_model(model: str, directory: str) -> float:
    """Build a tiny model with random weights and save it in diffusers' layout."""
    from familykit.models import BUILDERS

    start = time.perf_counter()
    pipe = BUILDERS[model]()
    pipe.save_pretrained(directory)
    return time.perf_counter() - start


def _save(path: str, pictures: Any) -> None:
    arrays = (
        pictures
        if isinstance(pictures, np.ndarray)
        else np.stack([np.asarray(p) for p in pictures])
    )
    np.save(path, arrays, allow_pickle=False)


def run_modular(
    directory: str,
    class_name: str,
    request: dict[str, Any],
    output: str,
    output_type: str,
    guider: dict[str, Any] | None,
    path: str,
) -> list[str]:
    """Run the unsplit modular pipeline as one would without us."""
    import diffusers
    import torch

    torch.set_num_threads(1)
    index = json.loads((Path(directory) / "model_index.json").read_text())
    pipe = getattr(diffusers, class_name)(
        pretrained_model_name_or_path=directory, config_dict=index
    )
    pipe.load_components()
    arguments = resolve(request)
    generator = torch.Generator().manual_seed(arguments.pop("seed"))
    inputs = {p.name for p in pipe.blocks.inputs}
    scale = arguments.get("guidance_scale")
    if scale is not None and "guidance_scale" not in inputs:
        del arguments["guidance_scale"]
    for name, component in list(pipe.components.items()):
        if isinstance(component, diffusers.ClassifierFreeGuidance):
            config = {k: v for k, v in component.config.items() if not k.startswith("_")}
            config |= {} if scale is None else {"guidance_scale": scale}
            config |= guider or {}
            pipe.update_components(**{name: type(component)(**config)})
    result = pipe(**arguments, generator=generator, output_type=output_type, output=output)
    _save(path, result)
    return sorted(name for name in sys.modules if name.startswith("disagfusion"))


def run_classic(
    directory: str, class_name: str, request: dict[str, Any], output: str, path: str
) -> None:
    """Run the classic pipeline."""
    import diffusers
    import torch

    torch.set_num_threads(1)
    pipe = getattr(diffusers, class_name).from_pretrained(directory)
    arguments = resolve(request)
    generator = torch.Generator().manual_seed(arguments.pop("seed"))
    scale = arguments.pop("guidance_scale", None)
    guider = getattr(pipe, "guider", None)
    if guider is not None and scale is not None:
        pipe.guider = guider.new(guidance_scale=scale)
    elif scale is not None:
        arguments["guidance_scale"] = scale
    result = pipe(**arguments, generator=generator, output_type="np")
    names = ("images",) if output == "images" else ("frames", "video")
    _save(path, next(getattr(result, name) for name in names if hasattr(result, name)))


class Steps:
    """Takes note of the steps."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.seen.append((done, total))


def run_stage(
    directory: str,
    stage: str,
    requests: dict[str, dict[str, Any]],
    inputs: dict[str, str],
    outputs: dict[str, str],
    output: str,
    output_type: str,
) -> dict[str, Any]:
    """Load one stage and run it for some requests, from files to files."""
    from disagfusion.pipeline.options import LoadOptions
    from disagfusion.pipeline.stage_model import StageModel, non_finite
    from disagfusion.pipeline.stages import Stage
    from familykit.wire import read, write

    start = time.perf_counter()
    model = StageModel.load(directory, Stage(stage), LoadOptions(threads=1))
    loaded = time.perf_counter() - start
    report: dict[str, Any] = {
        "pid": os.getpid(),
        "components": list(model.components),
        "load_seconds": loaded,
        "steps": {},
        "bytes": {},
        "names": {},
        "seconds": {},
        "workflow": {},
        "non_finite": [],
    }
    for name, request in requests.items():
        arguments = resolve(request)
        report["workflow"][name] = model.spec.workflow_of(arguments).name
        model.spec.validate(arguments)
        before = read(inputs[name]) if name in inputs else None
        start = time.perf_counter()
        extra = {"output_type": output_type} if stage == "decoder" else {}
        steps = Steps()
        after = model.run({**arguments, **extra}, before, on_step=steps)
        report["seconds"][name] = time.perf_counter() - start
        if stage == "decoder":
            _save(outputs[name], after[output])
        else:
            report["bytes"][name] = write(outputs[name], after)
            report["names"][name] = sorted(after)
            report["non_finite"] += non_finite(after)
        report["steps"][name] = steps.seen
    return report


def check(name: str, **arguments: Any) -> Any:
    """Run one of `familykit.checks`."""
    import torch

    from familykit import checks

    torch.set_num_threads(1)
    return getattr(checks, name)(**arguments)


def cut_all() -> list[dict[str, Any]]:
    """Cut every family's blocks."""
    from familykit import survey

    return survey.cut_all()
