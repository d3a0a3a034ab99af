"""The engine's main loop: load the model, then compute one run after the other."""

from __future__ import annotations

import importlib
import os
import time
from typing import NoReturn

from disagfusion import failpoints
from disagfusion.errors import (
    DisagfusionError,
    FailedPreconditionError,
    InvalidArgumentError,
    JobCancelledError,
)
from disagfusion.pipeline.model_files import check_there
from disagfusion.stage.channel import EngineChannel
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.engine_port import Engine, Result, Task
from disagfusion.stage.layouts import from_layouts, to_layouts
from disagfusion.stage.memory import SharedMemory
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import engine_pb2, stage_pb2

# How an engine ends that does so by itself.
EXIT_LOAD_FAILED = 3
EXIT_DEVICE = 4

_log = get_logger(__name__)


class NoSpaceError(Exception):
    """The front gave no room for an output."""


def load_engine(config: EngineConfig) -> Engine:
    """Load the model and the service's part of the engine.

    Raises:
        DisagfusionError: The model cannot be used.
    """
    if config.model:
        # Before torch is imported, which takes a while.
        check_there(config.model)
    module, _, name = config.engine.partition(":")
    kind = getattr(importlib.import_module(module), name)
    engine: Engine = kind.load(config)
    return engine


class EngineRunner:
    """Computes what the front asks for.

    Args:
        channel: To the front.
        memory: Inputs and outputs.
        config: How the engine was started.
    """

    def __init__(self, channel: EngineChannel, memory: SharedMemory, config: EngineConfig) -> None:
        self._channel = channel
        self._memory = memory
        self._config = config

    def load(self) -> Engine | None:
        """Load the model; None where that is impossible, which the front is told."""
        begin = time.perf_counter()
        try:
            engine = load_engine(self._config)
        except (FailedPreconditionError, InvalidArgumentError) as error:
            problem = error.message
        # Whatever goes wrong in a library: the front shows why there is no engine.
        except Exception as error:  # noqa: BLE001
            _log.exception("model not loaded")
            problem = f"{type(error).__name__}: {error}"
        else:
            seconds = time.perf_counter() - begin
            engine.prepare(self._memory)
            self._channel.send(loaded=self._describe(engine, seconds))
            return engine
        _log.error("model not loaded", problem=problem)
        self._channel.send(load_failed=engine_pb2.EngineLoadFailed(message=problem))
        return None

    def serve(self, engine: Engine) -> NoReturn:
        """Compute until this process ends."""
        while True:
            self.run(engine, self._channel.next_run())

    def run(self, engine: Engine, run: engine_pb2.RunStage) -> None:
        """Compute one run and tell the front what became of it."""
        failpoints.reach("engine.run")
        task = Task(
            generation=run.generation,
            inputs=None,
            on_step=lambda step, of: self._step(task, run.run_id, step, of),
            cancelled=self._channel.canceller(run.run_id),
            job_id=run.job_id,
            tenant=run.tenant,
        )
        try:
            if task.cancelled():
                raise JobCancelledError("cancelled")
            if run.HasField("input"):
                view = self._memory.view(run.input.offset, run.input.size_bytes)
                tensors = from_layouts(run.input.tensors)
                task.inputs = engine.read(view, tensors, run.input.structure)
            result = engine.run(task)
            self._write(run.run_id, result)
        # The boundary: whatever happens to one run, the front is told, and the next may run.
        except Exception as error:  # noqa: BLE001
            self._fail(run, task, error, *engine.classify(error))
            return
        failpoints.reach("engine.finish")
        self._channel.send(
            finished=engine_pb2.RunFinished(
                run_id=run.run_id,
                size_bytes=result.payload.nbytes,
                tensors=to_layouts(result.payload.tensors),
                structure=result.payload.structure,
                media=result.media,
                compute_seconds=task.compute_seconds,
                steps=task.steps,
                prompt_cache=result.prompt_cache,
            )
        )

    def _step(self, task: Task, run_id: int, step: int, of: int) -> None:
        task.steps = step
        self._channel.send(
            step=engine_pb2.RunStep(run_id=run_id, step=step, num_inference_steps=of)
        )
        failpoints.reach("engine.step")

    def _write(self, run_id: int, result: Result) -> None:
        space = self._channel.space(run_id, result.payload.nbytes)
        if space.offset < 0:
            if self._channel.canceller(run_id)():
                raise JobCancelledError("cancelled")
            raise NoSpaceError(space.reason)
        result.payload.write(self._memory.view(space.offset, result.payload.nbytes))

    def _fail(
        self,
        run: engine_pb2.RunStage,
        task: Task,
        error: Exception,
        kind: stage_pb2.FailureKind.ValueType,
        ends: bool,
    ) -> None:
        context = {"job_id": run.job_id, "attempt": run.attempt}
        if kind == stage_pb2.FAILURE_KIND_INTERNAL or ends:
            _log.error("run failed", exc_info=error, **context)
        message = error.message if isinstance(error, DisagfusionError) else str(error)
        self._channel.send(
            failed=engine_pb2.RunFailed(
                run_id=run.run_id,
                kind=kind,
                message=(message or type(error).__name__)[:4096],
                compute_seconds=task.compute_seconds,
                steps=task.steps,
                ends_engine=ends,
            )
        )
        if ends:
            os._exit(EXIT_DEVICE)

    def _describe(self, engine: Engine, seconds: float) -> engine_pb2.EngineLoaded:
        device = engine.device
        return engine_pb2.EngineLoaded(
            spec_json=engine.spec.to_json(),
            device=device.name,
            accelerators=device.accelerators,
            threads=device.threads,
            load_seconds=seconds,
        )
