"""An emulated pipeline as gateways know pipelines, and requests to it as shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from disagfusion.emulation.accelerator import Accelerator
from disagfusion.emulation.roles import MonolithKind
from disagfusion.pipeline.spec import PipelineSpec, Workflow
from disagfusion.scheduling.shapes import Shape

_FIELDS = {
    "height": "height",
    "width": "width",
    "num_frames": "num_frames",
    "num_inference_steps": "num_inference_steps",
    "num_images_per_prompt": "batch_size",
    "max_sequence_length": "sequence_length",
}
_WORKFLOW = "text2image"


def spec_of(accelerator: Accelerator, monolith: MonolithKind | None = None) -> PipelineSpec:
    """Return what an emulated pipeline accepts: what decides a job's shape, prompt and seed."""
    default = Shape()
    defaults = {name: getattr(default, field) for name, field in _FIELDS.items()}
    return PipelineSpec(
        family="emulated",
        class_name="EmulatedPipeline",
        version=f"emulated-{_digest(accelerator, monolith)}",
        output="image",
        workflows=(
            Workflow(name=_WORKFLOW, requires={"prompt": True}, inputs=("prompt", *_FIELDS)),
        ),
        defaults=defaults,
        preset=defaults,
        size_multiple=1,
    )


def shape_of(request: Mapping[str, Any]) -> Shape:
    """Return the shape of a request that `spec_of` accepts."""
    return Shape(**{field: request[name] for name, field in _FIELDS.items() if name in request})


def _digest(accelerator: Accelerator, monolith: MonolithKind | None) -> str:
    """Of what two stages must agree on: one counts the bytes that the other has made."""
    text = f"{monolith} {accelerator.time_scale!r} {accelerator.profile.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
