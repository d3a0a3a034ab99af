"""A small profile, a clock that tests turn, and engines on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from disagfusion.emulation.accelerator import Accelerator
from disagfusion.emulation.engine import EmulatedEngine
from disagfusion.emulation.roles import MonolithKind
from disagfusion.pipeline.stages import Stage
from disagfusion.scheduling.profile import Profile
from disagfusion.stage.engine_port import Result, Task
from disagfusion.v1 import generation_pb2

PROFILE: dict[str, Any] = {
    "pools": {
        "small": {
            "accelerators": 8,
            "memory_gib": 16,
            "load_gib_per_second": 2,
            "start_seconds": 3,
            "link_gib_per_second": 0.5,
        },
        "large": {"accelerators": 2, "memory_gib": 80, "load_gib_per_second": 4},
    },
    "stages": {
        "encoder": {
            "weights_gib": 6,
            "output_mib": 4,
            "pools": {"small": {"seconds": 5}, "large": {"seconds": 2}},
        },
        "dit": {
            "weights_gib": 10,
            "output_mib": {"per_megapixel": 2},
            "pools": {
                "small": {
                    "model": {"constant": 2, "per_step_megapixel": 3},
                    "memory_gib": {"constant": 10, "per_megapixel": 4},
                },
                "large": {"model": {"per_step_megapixel": 1}},
            },
        },
        "decoder": {"weights_gib": 1, "pools": {"small": {"seconds": 4, "memory_gib": 2}}},
    },
}


def profile(**changes: Any) -> Profile:
    return Profile.model_validate({**PROFILE, **changes})


class FakeClock:
    """Stands still but while somebody sleeps, and then takes a little longer."""

    def __init__(self, late: float = 0.0) -> None:
        self.time = 100.0
        self.late = late
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep_until(self, deadline: float) -> None:
        self.slept.append(deadline)
        if deadline > self.time:
            self.time = deadline + self.late


class Bench:
    """An engine, and what it says."""

    def __init__(
        self,
        stage: Stage = Stage.DIT,
        pool: str = "small",
        *,
        monolith: MonolithKind | None = None,
        late: float = 0.0,
        made_of: Profile | None = None,
        **settings: float,
    ) -> None:
        self.clock = FakeClock(late)
        self.accelerator = Accelerator(made_of or profile(), pool, **settings)
        self.engine = EmulatedEngine(self.accelerator, monolith, self.clock)
        self.engine.load_stage(stage)
        self.loaded_at = self.clock.time
        self.steps: list[tuple[int, int, float]] = []

    def task(
        self,
        inputs: Result | None = None,
        *,
        job_id: str = "j",
        cancelled: Callable[[], bool] = lambda: False,
        **asked: int,
    ) -> Task:
        asked = {"height": 1000, "width": 1000, "num_inference_steps": 4, **asked}
        generation = generation_pb2.Generation(prompt="p", seed=7, **asked)
        task = Task(
            generation,
            None,
            lambda step, of: self.steps.append((step, of, self.clock.time)),
            cancelled,
            job_id=job_id,
        )
        if inputs is not None:
            task.inputs = self.engine.read(
                written(inputs), inputs.payload.tensors, inputs.payload.structure
            )
        return task

    def seconds(self, task: Task) -> float:
        begin = self.clock.time
        self.engine.run(task)
        return self.clock.time - begin


def written(result: Result) -> memoryview:
    memory = memoryview(bytearray(result.payload.nbytes))
    result.payload.write(memory)
    return memory


def encoded(job_id: str = "j", **asked: int) -> Result:
    """What an encoder hands to the DiT."""
    bench = Bench(Stage.ENCODER)
    return bench.engine.run(bench.task(job_id=job_id, **asked))


def denoised(job_id: str = "j", **asked: int) -> Result:
    """What a DiT hands to the decoder."""
    bench = Bench(Stage.DIT)
    return bench.engine.run(bench.task(encoded(job_id, **asked), job_id=job_id, **asked))
