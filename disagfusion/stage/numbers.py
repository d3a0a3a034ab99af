"""The stages' numbers in the protocol, and the classes that compute them."""

from __future__ import annotations

from disagfusion.pipeline.stages import Stage
from disagfusion.v1 import generation_pb2

_NUMBERS = {
    Stage.ENCODER: generation_pb2.STAGE_ENCODER,
    Stage.DIT: generation_pb2.STAGE_DIT,
    Stage.DECODER: generation_pb2.STAGE_DECODER,
}
_STAGES = {number: stage for stage, number in _NUMBERS.items()}

ENGINES = {
    Stage.ENCODER: "disagfusion_encoder.engine:EncoderEngine",
    Stage.DIT: "disagfusion_dit.engine:DitEngine",
    Stage.DECODER: "disagfusion_decoder.engine:DecoderEngine",
}
"""By name: whoever starts an engine does not import it."""


def stage_number(stage: Stage) -> generation_pb2.Stage.ValueType:
    """Return a stage's number."""
    return _NUMBERS[stage]


def stage_of(number: int) -> Stage:
    """Return the stage of a number.

    Raises:
        KeyError: There is none.
    """
    return _STAGES[generation_pb2.Stage.ValueType(number)]
