from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from disagfusion.cli.measuring import default_ranges, measure
from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.performance.grid import Ranges
from disagfusion.scheduling.shapes import Shape

MIB = 1024**2


def record(stage: str, seconds: float, size: int) -> Any:
    return SimpleNamespace(
        stage=SimpleNamespace(name=stage), pid=0, device="test", compute_seconds=seconds,
        bytes_out=size,
    )  # fmt: skip


@dataclass
class Bench:
    """Stands for a client of a service whose stages take what the formulas below say."""

    idle: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def pipeline(self) -> Any:
        workflow = SimpleNamespace(inputs=("prompt", "height", "width", "num_inference_steps"))
        spec = SimpleNamespace(
            workflows=(workflow,), size_multiple=16, frames_multiple=1,
            defaults={"height": 512, "width": 768, "num_inference_steps": 20},
        )  # fmt: skip
        return SimpleNamespace(name="bench", spec=spec)

    def submit(self, prompt: str, **options: Any) -> Any:
        self.asked.append({"prompt": prompt, **options})
        pixels = options["height"] * options["width"] / 1e6
        steps = options["num_inference_steps"]
        seconds = {"ENCODER": 0.1, "DIT": steps * (0.5 + 2 * pixels), "DECODER": 3 * pixels}
        sizes = {"ENCODER": 4 * MIB, "DIT": int(pixels * MIB), "DECODER": 0}
        if self.idle:
            seconds[self.idle] = 0.0
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        job = SimpleNamespace(
            submitted_at=begin,
            ended_at=begin + timedelta(seconds=sum(seconds.values()) + 0.05),
            stages=[record(stage, seconds[stage], sizes[stage]) for stage in seconds],
        )
        return SimpleNamespace(result=lambda: None, refresh=lambda: job)


RANGES = Ranges(heights=(256, 512), widths=(256, 512), num_inference_steps=(2, 8))


def test_what_stages_cost_is_found_again() -> None:
    bench = Bench()
    found = measure(bench, RANGES, 6, 2, lambda text: None)  # type: ignore[arg-type]
    shape = Shape(height=384, width=512, num_inference_steps=5)
    pixels = shape.megapixels
    seconds = {name: stage.seconds.evaluate(shape) for name, stage in found.stages.items()}
    assert seconds["encoder"] == pytest.approx(0.1, rel=0.01)
    assert seconds["dit"] == pytest.approx(5 * (0.5 + 2 * pixels), rel=0.01)
    assert seconds["decoder"] == pytest.approx(3 * pixels, rel=0.01)
    assert found.stages["dit"].output.evaluate(shape) == pytest.approx(pixels, rel=0.01)
    assert found.overhead == pytest.approx(0.05)
    assert found.stages["dit"].noise < 0.01
    # The decoder takes no steps, whatever would fit.
    assert found.stages["decoder"].seconds.evaluate(
        shape.model_copy(update={"num_inference_steps": 50})
    ) == pytest.approx(3 * pixels, rel=0.01)


def test_jobs_differ_so_that_no_cache_answers_and_only_take_what_the_model_takes() -> None:
    bench = Bench()
    measure(bench, RANGES, 3, 2, lambda text: None)  # type: ignore[arg-type]
    assert len({one["prompt"] for one in bench.asked}) == len(bench.asked) == 2 + 6
    assert set(bench.asked[0]) == {"prompt", "seed", "height", "width", "num_inference_steps"}


def test_the_profile_can_be_planned_with() -> None:
    found = measure(Bench(), RANGES, 6, 1, lambda text: None)  # type: ignore[arg-type]
    profile = found.profile("bench", 4, "a test")
    assert profile.pools["bench"].accelerators == 4
    assert list(profile.stages) == ["encoder", "dit", "decoder"]
    assert profile.overhead_seconds == pytest.approx(0.05)


def test_a_stage_that_takes_no_time_is_no_measurement() -> None:
    with pytest.raises(FailedPreconditionError, match="encoder"):
        measure(Bench("ENCODER"), RANGES, 2, 1, lambda text: None)  # type: ignore[arg-type]


def test_the_models_own_size_and_less_by_default() -> None:
    assert default_ranges(Bench().pipeline()) == {
        "heights": (256, 512),
        "widths": (384, 768),
        "num_inference_steps": (5, 20),
    }
