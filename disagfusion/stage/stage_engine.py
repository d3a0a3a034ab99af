"""What an engine computes: one stage of a model. Services derive what is special about theirs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from disagfusion.errors import InternalError
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.pipeline.stage_model import StageModel, non_finite
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.payload import Payload
from disagfusion.stage.request import decode_images, request_values
from disagfusion.v1 import engine_pb2, generation_pb2


class NonFiniteError(InternalError):
    """An output has NaN or infinite values."""

    default_reason = "NON_FINITE"


@dataclass(slots=True)
class Task:
    """One run.

    Attributes:
        generation: What is asked of the model.
        inputs: What the stage before handed over; None for the first.
        on_step: To be called after each denoising step.
        cancelled: Tells whether to stop.
        compute_seconds: Adds up the time in the model.
        steps: Denoising steps done.
    """

    generation: generation_pb2.Generation
    inputs: Mapping[str, Any] | None
    on_step: Callable[[int, int], None]
    cancelled: Callable[[], bool]
    compute_seconds: float = 0.0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a run made.

    Attributes:
        payload: To be written to the memory that the front gives.
        media: What the files in the payload are, for a decoder.
        prompt_cache: For an encoder.
    """

    payload: Payload
    media: tuple[generation_pb2.Output, ...] = ()
    prompt_cache: engine_pb2.PromptCacheResult.ValueType = (
        engine_pb2.PROMPT_CACHE_RESULT_UNSPECIFIED
    )


class StageEngine:
    """Computes one stage.

    Args:
        model: The stage of the model.
        config: How the engine was started.
    """

    def __init__(self, model: StageModel, config: EngineConfig) -> None:
        self.model = model
        self.config = config

    @classmethod
    def load(cls, config: EngineConfig) -> Self:
        """Load the model and return its engine.

        Raises:
            DisagfusionError: The model cannot be used.
        """
        return cls(StageModel.load(config.model, config.stage, config.options), config)

    @property
    def spec(self) -> PipelineSpec:
        """What the whole pipeline accepts."""
        return self.model.spec

    def run(self, task: Task) -> Result:
        """Compute one run.

        Raises:
            DisagfusionError: It cannot be done; InvalidArgumentError where that is the request's
                own fault, NonFiniteError where the result is useless.
        """
        outputs = self.compute(task, request_values(task.generation))
        return Result(Payload.of_tree(outputs))

    def compute(self, task: Task, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model, timed and checked.

        Args:
            task: The run.
            request: As `request_values` returns it.
        """
        request = decode_images(request)
        begin = time.perf_counter()
        try:
            outputs = self.model.run(
                request, task.inputs, on_step=task.on_step, cancelled=task.cancelled
            )
            # The check also waits for the device, so that the time is the whole time.
            broken = non_finite(outputs)
        finally:
            task.compute_seconds += time.perf_counter() - begin
        if broken:
            raise NonFiniteError(f"not finite: {', '.join(broken[:8])}")
        return outputs
