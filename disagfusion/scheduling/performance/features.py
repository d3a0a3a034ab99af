"""Shapes at which models are compared, and models of what a profile says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from disagfusion.scheduling.profile import StagePool
from disagfusion.scheduling.shapes import CostModel, Shape

# Height, width, frames: pictures from 0.016 to 4.2 megapixels, videos of 32 and 119.
_SIZES = (
    (128, 128, 1),
    (512, 512, 1),
    (1024, 1024, 1),
    (2048, 2048, 1),
    (480, 832, 81),
    (720, 1280, 129),
)

REFERENCE_SHAPES = tuple(
    Shape(
        height=height,
        width=width,
        num_frames=frames,
        num_inference_steps=steps,
        sequence_length=tokens,
    )
    for height, width, frames in _SIZES
    for steps in (1, 8, 50)
    for tokens in (1, 512)
)
"""What diffusion pipelines are asked for, thinly."""


def seconds_model(where: StagePool) -> CostModel:
    """Return what a profile says of a stage's seconds as a model."""
    return CostModel(constant=where.seconds) if where.model is None else where.model  # type: ignore[arg-type]


def memory_model(where: StagePool) -> CostModel | None:
    """Return what a profile says of a stage's memory as a model; None where it says nothing."""
    memory = where.memory_gib
    model = CostModel(constant=memory) if isinstance(memory, float) else memory
    return model if model is not None and any(model.coefficients) else None


def scaled(model: CostModel, factor: float) -> CostModel:
    """Return a model of which every prediction is so many times another's."""
    return CostModel(**{name: getattr(model, name) * factor for name in CostModel.model_fields})


def mean_ratio(
    numerator: Callable[[Shape], float],
    denominator: Callable[[Shape], float],
    shapes: Iterable[Shape] = REFERENCE_SHAPES,
) -> float:
    """Return the geometric mean, over some shapes, of the ratio of two positive models."""
    logs = [math.log(numerator(shape) / denominator(shape)) for shape in shapes]
    return math.exp(sum(logs) / len(logs))
