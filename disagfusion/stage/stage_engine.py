"""What an engine computes with torch: one stage of a model. Services derive what is special."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.pipeline.stage_model import StageModel, non_finite
from disagfusion.stage import engine_port
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.engine_port import Device, Engine, NonFiniteError, Result, Task
from disagfusion.stage.memory import SharedMemory
from disagfusion.stage.payload import Payload, read_tree
from disagfusion.stage.request import decode_images, request_values
from disagfusion.telemetry.logging import get_logger
from disagfusion.transport.api import TensorInfo
from disagfusion.v1 import stage_pb2

__all__ = ["NonFiniteError", "Result", "StageEngine", "Task", "classify", "page_lock"]

_log = get_logger(__name__)


class StageEngine(Engine):
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
            DisagfusionError: The model or the device cannot be used.
        """
        check_device(config.options.device)
        return cls(StageModel.load(config.model, config.stage, config.options), config)

    @property
    def spec(self) -> PipelineSpec:
        """What the whole pipeline accepts."""
        return self.model.spec

    @property
    def device(self) -> Device:
        """What it computes on."""
        name = self.config.options.device
        if name.startswith("cuda"):
            name = f"{name} ({torch.cuda.get_device_name(name)})"
        return Device(name, threads=torch.get_num_threads())

    def prepare(self, memory: SharedMemory) -> None:
        """Lock the memory's pages where there is CUDA."""
        page_lock(memory, self.config.options.device)

    def read(
        self, memory: memoryview, tensors: Sequence[TensorInfo], structure: bytes
    ) -> Mapping[str, Any]:
        """Return what another engine left in memory; tensors are views of it."""
        return read_tree(memory, tensors, structure)

    def classify(self, error: Exception) -> tuple[stage_pb2.FailureKind.ValueType, bool]:
        """See `classify`."""
        return classify(error)

    def run(self, task: Task) -> Result:
        """Compute one run."""
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


def classify(error: Exception) -> tuple[stage_pb2.FailureKind.ValueType, bool]:
    """Return what a failure means to the gateway, and whether the engine must end.

    Torch's own failures; for all others see `engine_port.classify`.
    """
    match error:
        case torch.OutOfMemoryError():
            return stage_pb2.FAILURE_KIND_OUT_OF_MEMORY, True
        # torch has no class of its own for memory of the CPU.
        case RuntimeError() if "DefaultCPUAllocator" in str(error):
            return stage_pb2.FAILURE_KIND_OUT_OF_MEMORY, True
        case torch.AcceleratorError():
            return stage_pb2.FAILURE_KIND_DEVICE_ERROR, True
        case _:
            return engine_port.classify(error)


def check_device(name: str) -> None:
    """Check that a CUDA device is there; others tell by themselves.

    Raises:
        InvalidArgumentError: It is not.
    """
    kind, _, index = name.partition(":")
    if kind != "cuda":
        return
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        known = ", ".join(f"cuda:{number}" for number in range(count))
        expected = f"one of {known}" if known else "cpu: no CUDA device was found"
        raise InvalidArgumentError("device", repr(name), expected=expected)


def page_lock(memory: SharedMemory, device: str) -> bool:
    """Lock the memory's pages for CUDA, which then copies to and from them by itself.

    Where that is impossible they are copied once more, which is slower and as right.

    Returns:
        Whether they are locked.
    """
    if not device.startswith("cuda"):
        return False
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    address = torch.frombuffer(memory.view(0, memory.nbytes), dtype=torch.uint8).data_ptr()
    status = int(runtime.cudaHostRegister(address, memory.nbytes, 0))
    if status:
        _log.warning("memory not page-locked", status=status, size_bytes=memory.nbytes)
    return not status
