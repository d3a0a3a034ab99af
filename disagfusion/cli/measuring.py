"""Measuring a model: jobs of chosen shapes through a small embedded system, one at a time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from disagfusion.errors import FailedPreconditionError

if TYPE_CHECKING:
    from disagfusion.client import Client, Job, Pipeline
    from disagfusion.scheduling.performance.grid import Ranges
    from disagfusion.scheduling.profile import Profile
    from disagfusion.scheduling.shapes import CostModel, Shape

_PROMPT = "a quiet lake between hills, in the morning"
_WARM_UP = 2
_MIB = 1024.0**2
_KIB_PER_GIB = 1024.0**2


@dataclass(frozen=True, slots=True)
class Run:
    """A measured job.

    Attributes:
        shape: What was asked for.
        seconds: Stage → seconds that its engine computed.
        output_mib: Stage → what it handed on.
        overhead: Seconds from acceptance to end in which no engine computed.
    """

    shape: Shape
    seconds: dict[str, float]
    output_mib: dict[str, float]
    overhead: float


@dataclass(frozen=True, slots=True)
class StageMeasure:
    """What was learned of a stage.

    Attributes:
        seconds: Its model.
        p95_ratio: 95th percentile of the measured seconds over the model's.
        noise: Relative standard deviation from the model.
        width: Half the 90 % prediction interval over the prediction, the widest over the shapes.
        output: MiB that it hands on.
        memory_gib: Most memory of its engine, where it could be read.
    """

    seconds: CostModel
    p95_ratio: float
    noise: float
    width: float
    output: CostModel
    memory_gib: float | None


@dataclass(slots=True)
class Measurement:
    """Everything that was measured of a model.

    Attributes:
        model: Its name.
        device: Where, as workers call it.
        unidentified: Features that the runs could not tell from others.
        stages: By name.
        overhead: Median seconds of a job in which no engine computes.
        runs: One by one.
    """

    model: str
    device: str
    unidentified: tuple[str, ...]
    stages: dict[str, StageMeasure] = field(default_factory=dict)
    overhead: float = 0.0
    runs: list[Run] = field(default_factory=list)

    def profile(self, pool: str, accelerators: int, source: str) -> Profile:
        """Return the profile of a pool of such devices."""
        from disagfusion.scheduling.profile import Pool, Profile, StagePool, StageProfile

        return Profile(
            name=self.model,
            source=source,
            overhead_seconds=round(self.overhead, 6),
            pools={pool: Pool(accelerators=accelerators)},
            stages={
                name: StageProfile(
                    output_mib=measure.output,
                    pools={
                        pool: StagePool(
                            model=measure.seconds,
                            p95_ratio=round(measure.p95_ratio, 4),
                            memory_gib=measure.memory_gib,
                        )
                    },
                )
                for name, measure in self.stages.items()
            },
        )


def default_ranges(pipeline: Pipeline) -> dict[str, tuple[int, ...]]:
    """Return what is measured where nobody says: the model's own size and steps, and half of it."""
    defaults, spec = pipeline.spec.defaults, pipeline.spec
    found: dict[str, tuple[int, ...]] = {}
    for name, argument in (("heights", "height"), ("widths", "width")):
        own = int(defaults.get(argument, 512))
        half = own // 2 // spec.size_multiple * spec.size_multiple
        found[name] = (half, own) if half else (own,)
    steps = int(defaults.get("num_inference_steps", 4))
    found["num_inference_steps"] = tuple(sorted({max(1, steps // 4), steps}))
    if "num_frames" in defaults:
        frames = int(defaults["num_frames"])
        fewer = (frames - 1) // 2 // spec.frames_multiple * spec.frames_multiple + 1
        found["num_frames"] = tuple(sorted({fewer, frames}))
    return found


def measure(
    client: Client,
    ranges: Ranges,
    maximum_shapes: int,
    repeats: int,
    tell: Callable[[str], None],
) -> Measurement:
    """Measure a model that is served, with one worker of each stage.

    Args:
        client: Of the service.
        ranges: What jobs may ask for.
        maximum_shapes: Different shapes to measure.
        repeats: How often each of them.
        tell: Told about progress.

    Raises:
        DisagfusionError: A job failed.
    """
    from disagfusion.scheduling.performance.grid import choose_shapes

    pipeline = client.pipeline()
    design = choose_shapes(ranges, maximum_shapes)
    arguments = {name for workflow in pipeline.spec.workflows for name in workflow.inputs}
    order = [design.shapes[0]] * _WARM_UP + list(_interleaved(design.shapes, repeats))
    found = Measurement(pipeline.name, "", design.unidentified)
    pids: dict[str, int] = {}
    for number, shape in enumerate(order):
        job = _generate(client, shape, number, arguments)
        records = {record.stage.name.lower(): record for record in job.stages}
        pids = {stage: record.pid for stage, record in records.items()}
        found.device = next(iter(records.values())).device
        if number < _WARM_UP:
            continue
        assert job.submitted_at is not None
        assert job.ended_at is not None
        seconds = {stage: record.compute_seconds for stage, record in records.items()}
        whole = (job.ended_at - job.submitted_at).total_seconds()
        found.runs.append(
            Run(
                shape,
                seconds,
                {stage: record.bytes_out / _MIB for stage, record in records.items()},
                max(0.0, whole - sum(seconds.values())),
            )
        )
        tell(f"{number + 1 - _WARM_UP}/{len(order) - _WARM_UP}  {whole:.3f} s")
    found.overhead = statistics.median(run.overhead for run in found.runs)
    for stage in found.runs[0].seconds:
        found.stages[stage] = _learn(found.runs, stage, design.shapes, _peak_gib(pids[stage]))
    return found


def _interleaved(shapes: Sequence[Shape], repeats: int) -> Iterator[Shape]:
    # Each shape at several times: a machine's speed is not steady.
    for _ in range(repeats):
        yield from shapes


def _generate(client: Client, shape: Shape, seed: int, arguments: set[str]) -> Job:
    given = {
        "height": shape.height,
        "width": shape.width,
        "num_frames": shape.num_frames,
        "num_inference_steps": shape.num_inference_steps,
        "num_images_per_prompt": shape.batch_size,
    }
    options = {name: value for name, value in given.items() if name in arguments}
    # Each prompt is another: the encoder remembers what it has encoded.
    handle = client.submit(f"{_PROMPT}, {seed:06d}", seed=seed, **options)  # type: ignore[arg-type]
    handle.result()
    return handle.refresh()


def _learn(
    runs: Sequence[Run], stage: str, shapes: Sequence[Shape], memory: float | None
) -> StageMeasure:
    from disagfusion.scheduling.performance.grid import confidence
    from disagfusion.scheduling.shapes import CostModel

    # Only the DiT takes steps: what else would seem to depend on them is chance.
    steps = stage == "dit"
    asked = [shape if steps else _one_step(shape) for shape in shapes]
    measured = [(run.shape if steps else _one_step(run.shape), run.seconds[stage]) for run in runs]
    if not all(seconds > 0.0 for _, seconds in measured):
        raise FailedPreconditionError(f"{stage}: its engine says that it took no time")
    trust = confidence(measured, asked)
    ratios = sorted(seconds / trust.model.evaluate(shape) for shape, seconds in measured)
    p95 = ratios[min(len(ratios) - 1, int(0.95 * len(ratios)))]
    sent = [(_one_step(run.shape), run.output_mib[stage]) for run in runs]
    output = CostModel()
    if all(mib > 0.0 for _, mib in sent):
        output = _without_steps(confidence(sent, ()).model)
    return StageMeasure(
        seconds=trust.model if steps else _without_steps(trust.model),
        p95_ratio=max(1.0, p95),
        noise=trust.noise,
        width=max(trust.relative_widths),
        output=output,
        memory_gib=memory,
    )


def _one_step(shape: Shape) -> Shape:
    return shape.model_copy(update={"num_inference_steps": 1})


def _without_steps(model: CostModel) -> CostModel:
    """Return a model fitted to one step, with nothing left that would grow with steps."""
    return model.model_copy(
        update={
            "constant": model.constant + model.per_step,
            "per_megapixel": model.per_megapixel + model.per_step_megapixel,
            "per_megapixel_squared": model.per_megapixel_squared + model.per_step_megapixel_squared,
            "per_step": 0.0,
            "per_step_megapixel": 0.0,
            "per_step_megapixel_squared": 0.0,
        }
    )


def _peak_gib(pid: int) -> float | None:
    """Return the most memory that a process of this machine has had."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if line is None else round(int(line.split()[1]) / _KIB_PER_GIB, 3)
