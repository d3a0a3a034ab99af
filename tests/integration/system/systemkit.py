"""A whole deployment on this machine, whose processes can be made to die at chosen points."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from disagfusion.client import Client, JobHandle
from disagfusion.local import LocalRuntime, ProcessStatus

PROCESSES = ("gateway", "encoder-0", "dit-0", "dit-1", "decoder-0")
PATIENCE = 60.0

T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """The first true value of `condition`, looked at every 10 ms."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.01)


class System:
    """The running deployment and ways to hurt it."""

    def __init__(self, runtime: LocalRuntime, client: Client, failpoints: Path) -> None:
        self.runtime = runtime
        self.client = client
        self._failpoints = failpoints

    def process(self, name: str) -> ProcessStatus:
        return next(entry for entry in self.runtime.status() if entry.name == name)

    def arm(self, process: str, point: str, passes: int = 1) -> None:
        (self._failpoints / process / point).write_text(str(passes))

    def steps_taken(self, process: str, armed: int) -> int:
        """How many denoising steps were taken since `engine.step` was armed with so many."""
        # The engine rewrites the file: it may be read between truncation and writing.
        file = self._failpoints / process / "engine.step"
        return armed - int(until(file.read_text, "the number of steps"))

    def disarm(self) -> None:
        for path in self._failpoints.glob("*/*"):
            path.unlink(missing_ok=True)

    def reached(self, process: str, point: str) -> bool:
        return (self._failpoints / process / f"{point}.reached").exists()

    def metric(self, process: str, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        address = self.process(process).metrics_address
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        total = 0.0
        for line in text.splitlines():
            match = re.match(rf"{name}(?:\{{(?P<labels>.*)\}})? (?P<value>\S+)$", line)
            if match and all(f'{k}="{v}"' in (match["labels"] or "") for k, v in labels.items()):
                total += float(match["value"])
        return total

    def submit(self, seed: int, steps: int = 8, **options: object) -> JobHandle:
        return self.client.submit(
            PROMPTS[seed % len(PROMPTS)],
            seed=seed,
            num_inference_steps=steps,
            height=64,
            width=64,
            # A prompt's 512 tokens by default would take most of the time.
            parameters={"max_sequence_length": 32},
            **options,
        )

    def engine_pid(self, stage: str, index: int = 0) -> int:
        """The engine of a stage service, found as the kernel sees it."""
        handle = self.submit(seed=0)
        handle.result()
        records = [entry for entry in handle.refresh().stages if entry.stage == stage]
        return records[index].pid


PROMPTS = (
    "a handwritten seven in red",
    "a handwritten three in blue",
    "a handwritten zero in green",
    "a handwritten five in orange",
)
