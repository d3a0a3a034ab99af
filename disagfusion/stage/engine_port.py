"""What the runner knows of an engine, whatever computes behind it. No torch in here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from disagfusion.errors import (
    DataLossError,
    InternalError,
    InvalidArgumentError,
    JobCancelledError,
    UnimplementedError,
)
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.memory import SharedMemory
from disagfusion.transport.api import TensorInfo
from disagfusion.v1 import engine_pb2, generation_pb2, stage_pb2


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
        job_id: Whose run it is.
        tenant: Whose job that is.
    """

    generation: generation_pb2.Generation
    inputs: Mapping[str, Any] | None
    on_step: Callable[[int, int], None]
    cancelled: Callable[[], bool]
    compute_seconds: float = 0.0
    steps: int = 0
    job_id: str = ""
    tenant: str = ""


class Payload(Protocol):
    """What is to be written to shared memory."""

    @property
    def nbytes(self) -> int:
        """In all."""

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """Places and forms."""

    @property
    def structure(self) -> bytes:
        """The values that are not tensors."""

    def write(self, memory: memoryview) -> None:
        """Write everything; equal outputs are equal bytes."""


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


@dataclass(frozen=True, slots=True)
class Device:
    """What an engine computes on.

    Attributes:
        name: Such as "cuda:0 (NVIDIA H200)".
        accelerators: How many of them.
        threads: Of operations on the CPU.
    """

    name: str
    accelerators: int = 1
    threads: int = 1


class Engine(ABC):
    """Computes what a worker is there for."""

    @classmethod
    @abstractmethod
    def load(cls, config: EngineConfig) -> Self:
        """Load the model and return its engine.

        Raises:
            DisagfusionError: The model cannot be used.
        """

    @property
    @abstractmethod
    def spec(self) -> PipelineSpec:
        """What the whole pipeline accepts."""

    @property
    @abstractmethod
    def device(self) -> Device:
        """What it computes on."""

    @abstractmethod
    def read(
        self, memory: memoryview, tensors: Sequence[TensorInfo], structure: bytes
    ) -> Mapping[str, Any]:
        """Return what another engine's `Payload` left in memory.

        Raises:
            DataLossError: It does not fit the memory or each other.
        """

    @abstractmethod
    def run(self, task: Task) -> Result:
        """Compute one run.

        Raises:
            DisagfusionError: It cannot be done; InvalidArgumentError where that is the request's
                own fault, NonFiniteError where the result is useless.
        """

    def prepare(self, memory: SharedMemory) -> None:  # noqa: B027 -- most have nothing to do
        """Make ready the memory that all inputs and outputs will be in."""

    def classify(self, error: Exception) -> tuple[stage_pb2.FailureKind.ValueType, bool]:
        """Return what a failure means to the gateway, and whether the engine must end."""
        return classify(error)


def classify(error: Exception) -> tuple[stage_pb2.FailureKind.ValueType, bool]:
    """Return what a failure means to the gateway, and whether the engine must end.

    After an error of the device nothing that it computes can be trusted; after it ran out of
    memory, a new process is what surely has the memory back.
    """
    match error:
        case JobCancelledError():
            return stage_pb2.FAILURE_KIND_CANCELLED, False
        case NonFiniteError():
            return stage_pb2.FAILURE_KIND_NON_FINITE, False
        case DataLossError():
            return stage_pb2.FAILURE_KIND_INPUT_LOST, False
        case InvalidArgumentError() | UnimplementedError():
            return stage_pb2.FAILURE_KIND_INVALID_ARGUMENT, False
        case MemoryError():
            return stage_pb2.FAILURE_KIND_OUT_OF_MEMORY, True
        # This is how diffusers' blocks refuse an input.
        case ValueError():
            return stage_pb2.FAILURE_KIND_INVALID_ARGUMENT, False
        case _:
            return stage_pb2.FAILURE_KIND_INTERNAL, False
