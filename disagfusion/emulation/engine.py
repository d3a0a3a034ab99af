"""The engine of an emulated worker: takes the time, fills the memory, computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from disagfusion.emulation.accelerator import Accelerator
from disagfusion.emulation.clock import Clock, MonotonicClock
from disagfusion.emulation.content import Content, facts_of
from disagfusion.emulation.description import shape_of, spec_of
from disagfusion.emulation.picture import draw, output_of
from disagfusion.emulation.roles import MonolithKind, role_of
from disagfusion.errors import DataLossError, JobCancelledError
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.pipeline.stages import Stage
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.devices import emulated_device
from disagfusion.stage.engine_port import Device, Engine, Result, Task
from disagfusion.stage.request import output_format, request_values
from disagfusion.transport.api import TensorInfo

_CONTENT = "content"


@dataclass(frozen=True, slots=True)
class _Files:
    """Encoded results, one after the other."""

    files: tuple[bytes, ...]

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.files))

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        return ()

    @property
    def structure(self) -> bytes:
        return b""

    def write(self, memory: memoryview) -> None:
        memory[: self.nbytes] = b"".join(self.files)


class EmulatedEngine(Engine):
    """Behaves like a worker of one stage on an accelerator of a profile.

    Args:
        accelerator: Says what takes how long.
        monolith: Which kind of unsplit pipeline the worker is part of; None for a split one.
        clock: Passes the time.

    Attributes:
        stage: Whose worker it is; None before `load_stage`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        monolith: MonolithKind | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._monolith = monolith
        self._clock = clock or MonotonicClock()
        self._spec = spec_of(accelerator, monolith)
        self.stage: Stage | None = None

    @classmethod
    def load(cls, config: EngineConfig) -> Self:
        """Emulate the accelerator and load the stage that the configuration names."""
        emulation = config.emulation
        if emulation is None:
            raise ValueError("an emulated engine needs a profile and a pool")
        accelerator = Accelerator(
            Profile.model_validate_json(emulation.profile),
            emulation.pool,
            time_scale=emulation.time_scale,
            time_noise=emulation.time_noise,
        )
        engine = cls(accelerator, emulation.monolith)
        engine.load_stage(config.stage)
        return engine

    def load_stage(self, stage: Stage) -> None:
        """Take a stage's weights, in the place of those that are here.

        Raises:
            InvalidArgumentError: The profile does not say what the stage costs here.
            FailedPreconditionError: Its weights do not fit.
        """
        self.stage = None
        role = role_of(stage, self._monolith)
        self._accelerator.check_names(role.stages)
        self._accelerator.check_weights(role)
        clock = self._clock
        clock.sleep_until(clock.now() + self._accelerator.load_seconds(role))
        self.stage = stage

    @property
    def spec(self) -> PipelineSpec:
        """What the emulated pipeline accepts."""
        return self._spec

    @property
    def device(self) -> Device:
        """What is emulated."""
        role = role_of(self._loaded(), self._monolith)
        name = emulated_device(self._accelerator.pool)
        if self._monolith:
            name += f" ({role})"
        return Device(name, self._accelerator.accelerators(role))

    def read(
        self, memory: memoryview, tensors: Sequence[TensorInfo], structure: bytes
    ) -> Mapping[str, Any]:
        """Return the bytes that another emulated engine left in memory."""
        facts_of(structure)
        if [(info.offset, info.nbytes) for info in tensors] != [(0, memory.nbytes)]:
            raise DataLossError("not the one tensor of an emulated stage", reason="DAMAGED_VALUES")
        return {_CONTENT: memory}

    def run(self, task: Task) -> Result:
        """Take as long as the job would.

        What is verified and made meanwhile counts as part of that time.
        """
        begin = self._clock.now()
        stage = self._loaded()
        request = self._spec.complete(request_values(task.generation))
        shape = shape_of(request)
        self._accelerator.check_memory(role_of(stage, self._monolith), shape)
        try:
            self._verify(stage, task, shape)
            result = self._output(stage, task, shape, request)
            self._pass_time(stage, task, shape, begin)
        finally:
            task.compute_seconds += self._clock.now() - begin
        return result

    def _loaded(self) -> Stage:
        assert self.stage is not None, "load_stage comes first"
        return self.stage

    def _verify(self, stage: Stage, task: Task, shape: Shape) -> None:
        if stage.previous is None:
            return
        if task.inputs is None:
            raise DataLossError("there is no input", reason="DAMAGED_VALUES")
        self._content(stage.previous, task, shape).verify(task.inputs[_CONTENT])

    def _pass_time(self, stage: Stage, task: Task, shape: Shape, begin: float) -> None:
        role = role_of(stage, self._monolith)
        seconds = self._accelerator.service_seconds(role, shape, task.job_id)
        steps = shape.num_inference_steps if stage is Stage.DIT else 0
        for step in range(1, steps + 1):
            if task.cancelled():
                raise JobCancelledError("cancelled between two steps")
            self._clock.sleep_until(begin + seconds * step / steps)
            task.on_step(step, steps)
        self._clock.sleep_until(begin + seconds)

    def _output(self, stage: Stage, task: Task, shape: Shape, request: Mapping[str, Any]) -> Result:
        if stage.following is not None:
            return Result(self._content(stage, task, shape))
        chosen = output_format(task.generation.output_format, self._spec.output)
        frames = f", {shape.num_frames} frames" if shape.num_frames > 1 else ""
        files = tuple(
            draw(
                (
                    f"emulated on {self._accelerator.pool}, {index + 1} of {shape.batch_size}",
                    f"{shape.width} x {shape.height}{frames}, {shape.num_inference_steps} steps",
                    f"seed {request.get('seed', 0)}",
                    f"job {task.job_id}",
                ),
                chosen,
            )
            for index in range(shape.batch_size)
        )
        media = tuple(output_of(file, index, chosen) for index, file in enumerate(files))
        return Result(_Files(files), media)

    def _content(self, stage: Stage, task: Task, shape: Shape) -> Content:
        facts = {
            "pool": self._accelerator.pool,
            "link_bytes_per_second": self._accelerator.link_bytes_per_second,
        }
        nbytes = self._accelerator.output_bytes(role_of(stage, self._monolith), shape)
        return Content(task.job_id, stage, nbytes, facts)
