"""What the DiT of a measurement is given to do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from disagfusion.local.deployment import DIGITS
from disagfusion.pipeline.stage_model import StageModel
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.payload import Payload
from disagfusion.stage.request import request_values
from disagfusion.v1 import generation_pb2 as pb


@dataclass(frozen=True, eq=False)
class Workload:
    """Jobs that are all alike.

    Attributes:
        engine: The engine's class, as "module:Class"; it writes a trace of its runs.
        model: The directory of its model, if it has one.
        conditioning: What the encoder hands over.
        latents_bytes: What the DiT hands over.
        generation: What is asked of the model.
    """

    engine: str
    model: Path | None
    conditioning: Payload
    latents_bytes: int
    generation: pb.Generation


def paced(work: str, amount: float, input_bytes: int, output_bytes: int) -> Workload:
    """Return work of a known length: "sleep" in seconds, "multiply" and "copy" in repetitions."""
    generation = pb.Generation(prompt="paced", num_inference_steps=1, height=64, width=64)
    generation.parameters["work"].string_value = work
    generation.parameters["amount"].double_value = amount
    generation.parameters["output_bytes"].int_value = output_bytes
    embeds = torch.zeros(input_bytes, dtype=torch.uint8)
    return Workload(
        engine="benchmarks.overlapkit.engine:PacedEngine",
        model=None,
        conditioning=Payload.of_tree({"embeds": embeds}),
        latents_bytes=output_bytes,
        generation=generation,
    )


@cache
def digits() -> Workload:
    """Return handwritten digits, denoised by the real model."""
    generation = pb.Generation(
        prompt="a handwritten five in red", num_inference_steps=8, height=64, width=64, seed=5
    )
    generation.parameters["max_sequence_length"].int_value = 32
    request = request_values(generation)
    conditioning = StageModel.load(str(DIGITS), Stage.ENCODER).run(request)
    latents = StageModel.load(str(DIGITS), Stage.DIT).run(request, conditioning)
    return Workload(
        engine="benchmarks.overlapkit.engine:TracedDit",
        model=DIGITS,
        conditioning=Payload.of_tree(conditioning),
        latents_bytes=Payload.of_tree(latents).nbytes,
        generation=generation,
    )
