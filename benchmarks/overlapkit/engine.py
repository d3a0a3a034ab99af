"""Engines that write when each of their runs began and ended, on the clock all processes share.

One takes a known time and hands over a known number of bytes. What it does in that time is said by
the request: it sleeps, as a processor does whose accelerator computes (emulated), or it multiplies
matrices or copies memory as often as it is told. The other is the product's own DiT.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO

import torch
from disagfusion_dit.engine import DitEngine

from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.payload import Payload
from disagfusion.stage.request import request_values
from disagfusion.stage.stage_engine import Result, StageEngine, Task

_MATRIX = 1024
_MEMORY = 64 << 20


# In the model's directory.
TRACE = "trace"


def open_trace(config: EngineConfig) -> TextIO:
    """Open the trace of an engine, line by line."""
    return (Path(config.model) / TRACE).open("a", buffering=1)


class TracedDit(DitEngine):
    """The DiT."""

    def compute(self, task: Task, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model."""
        begin = time.monotonic()
        outputs = super().compute(task, request)
        with open_trace(self.config) as trace:
            trace.write(f"{begin:.6f} {time.monotonic():.6f}\n")
        return outputs


class PacedEngine(StageEngine):
    """See the module; the parameters of a request are `work`, `amount` and `output_bytes`."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._trace = open_trace(config)
        self._outputs: dict[int, torch.Tensor] = {}
        self._matrix = torch.rand(_MATRIX, _MATRIX)
        self._memory = torch.ones(2, _MEMORY, dtype=torch.uint8)

    @classmethod
    def load(cls, config: EngineConfig) -> Self:
        """Load nothing."""
        return cls(config)

    @property
    def spec(self) -> PipelineSpec:
        """Nothing that a gateway could use: this engine is driven without one."""
        return PipelineSpec(
            family="paced", class_name="Paced", version="0", output="image", workflows=()
        )

    def run(self, task: Task) -> Result:
        """Take the time."""
        asked = request_values(task.generation)
        begin = time.monotonic()
        self._work(asked)
        end = time.monotonic()
        task.compute_seconds += end - begin
        self._trace.write(f"{begin:.6f} {end:.6f}\n")
        nbytes = int(asked["output_bytes"])
        if nbytes not in self._outputs:
            self._outputs = {nbytes: torch.randint(256, (nbytes,), dtype=torch.uint8)}
        return Result(Payload.of_tree({"latents": self._outputs[nbytes]}))

    def _work(self, asked: dict[str, Any]) -> None:
        amount = asked["amount"]
        match asked["work"]:
            case "sleep":
                time.sleep(amount)
            case "multiply":
                result = self._matrix
                for _ in range(int(amount)):
                    result = torch.mm(self._matrix, self._matrix, out=torch.empty_like(result))
            case "copy":
                source, target = self._memory
                for _ in range(int(amount)):
                    target.copy_(source)
            case other:
                raise ValueError(f"work cannot be {other!r}")
