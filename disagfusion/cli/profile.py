"""`disagfusion profile`."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disagfusion.cli import options
from disagfusion.errors import DisagfusionError, FailedPreconditionError, InvalidArgumentError

if TYPE_CHECKING:
    from rich.console import Console

    from disagfusion.cli.measuring import Measurement
    from disagfusion.scheduling.profile import Profile

_GRID = "What is measured"


def profile(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write it.")],
    model: options.Model = None,
    device: options.Device = None,
    dtype: options.DType = None,
    threads: options.Threads = None,
    transport: options.Transport = "ucx",
    heights: Annotated[
        str, typer.Option(metavar="N,N", help="Pixels.", rich_help_panel=_GRID)
    ] = "",
    widths: Annotated[str, typer.Option(metavar="N,N", help="Pixels.", rich_help_panel=_GRID)] = "",
    num_frames: Annotated[
        str, typer.Option(metavar="N,N", help="Of videos.", rich_help_panel=_GRID)
    ] = "",
    steps: Annotated[
        str,
        typer.Option(
            "--num-inference-steps",
            "--steps",
            metavar="N,N",
            help="Denoising steps.",
            rich_help_panel=_GRID,
        ),
    ] = "",
    shapes: Annotated[
        int,
        typer.Option(
            help="Different shapes to measure: those that tell most.", min=1, rich_help_panel=_GRID
        ),
    ] = 6,
    repeats: Annotated[
        int, typer.Option(help="How often each of them.", min=1, rich_help_panel=_GRID)
    ] = 3,
    pool: Annotated[str, typer.Option(help="Name of such accelerators in the profile.")] = "local",
    accelerators: Annotated[int, typer.Option(help="How many of them to plan for.", min=1)] = 8,
    logs: options.Logs = False,
) -> None:
    """Measure what each stage of a model costs on this machine, and write a profile.

    A few jobs of chosen shapes run through a small embedded system, one at a time. Height, width,
    frames and steps are the model's own and less, where nothing is said.
    """
    from disagfusion.cli.documents import require_planner

    require_planner()
    _check_out(out)
    _check_pool(pool)
    _check_device(device)
    given = {
        "heights": _numbers("--heights", heights),
        "widths": _numbers("--widths", widths),
        "num_frames": _numbers("--num-frames", num_frames),
        "num_inference_steps": _numbers("--num-inference-steps", steps),
    }
    from rich.console import Console

    from disagfusion.cli.measuring import default_ranges, measure
    from disagfusion.cli.show import output_console
    from disagfusion.client import Client
    from disagfusion.local import LocalRuntime
    from disagfusion.scheduling.performance.grid import Ranges

    console = Console(stderr=True)
    runtime = LocalRuntime(
        model,
        threads=threads,
        transport=transport,
        settings=options.engine_settings(device, dtype),
        echo=logs,
    )
    with runtime, Client(runtime.address) as client:
        ranges = default_ranges(client.pipeline())
        ranges |= {name: values for name, values in given.items() if values}
        with progress(console) as tell:
            found = measure(client, Ranges(**ranges), shapes, repeats, tell)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    source = (
        f"Measured by `disagfusion profile` on {found.device}, {today}:"
        f" {len(found.runs)} jobs of {shapes} shapes at most, one at a time."
    )
    result = found.profile(pool, accelerators, source)
    _write(out, result)
    _say(output_console(), found, result, out)


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Have someone told about progress: a line that changes on a terminal, lines elsewhere.

    The line ends with the block, so that an error has one of its own.
    """
    told = False

    def tell(text: str) -> None:
        nonlocal told
        told = True
        console.print(text, end="\r" if console.is_terminal else "\n", highlight=False)

    try:
        yield tell
    finally:
        if told and console.is_terminal:
            console.print()


def _check_out(path: Path) -> None:
    """See whether the file can be written, before anything is measured."""
    directory = path.parent
    problem = ""
    if path.is_dir():
        problem = f"{path} is a directory"
    elif not directory.is_dir():
        problem = f"there is no directory {directory}"
    elif not os.access(path if path.exists() else directory, os.W_OK):
        problem = f"{path} cannot be written"
    if problem:
        raise InvalidArgumentError("--out", problem, expected="a file that can be written")


def _check_pool(name: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    from disagfusion.scheduling.document import Name

    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise InvalidArgumentError(
            "--pool", repr(name),
            expected="1 to 63 of a-z, 0-9 and hyphens, with no hyphen at either end",
        ) from error  # fmt: skip


def _check_device(device: str | None) -> None:
    from disagfusion.stage.devices import is_emulated

    if device is not None and is_emulated(device):
        raise InvalidArgumentError(
            "--device", "emulated devices cannot be measured",
            expected="torch's name, such as cpu or cuda:0",
        )  # fmt: skip


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(one) for one in text.split(",") if one)
    except ValueError:
        found = (0,)
    if any(number < 1 for number in found):
        raise InvalidArgumentError(option, repr(text), expected="whole numbers from 1, as 4,8")
    return found


def _write(path: Path, profile: Profile) -> None:
    import yaml

    text = yaml.safe_dump(profile.model_dump(exclude_defaults=True), sort_keys=False, width=100)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FailedPreconditionError(f"--out: {path}: {error.strerror or error}") from error


def _say(console: Console, found: Measurement, profile: Profile, path: Path) -> None:
    from rich.table import Table

    from disagfusion.scheduling.demand import Demand
    from disagfusion.scheduling.planner import plan
    from disagfusion.scheduling.shapes import WeightedShape

    largest = max((run.shape for run in found.runs), key=lambda shape: shape.features)
    console.print(f"{found.model} on {found.device}: {path}")
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "seconds", "P95", "± at 90 %", "hands on", "memory"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for name, stage in found.stages.items():
        table.add_row(
            name,
            f"{stage.seconds.evaluate(largest):.4f}",
            f"× {stage.p95_ratio:.2f}",
            f"{100 * stage.width:.0f} %",
            f"{stage.output.evaluate(largest):.3f} MiB" if any(stage.output.coefficients) else "",
            "" if stage.memory_gib is None else f"{stage.memory_gib:.2f} GiB",
        )
    console.print(table)
    console.print(
        f"Seconds are of {largest.width}×{largest.height}"
        f"{f'×{largest.num_frames}' if largest.num_frames > 1 else ''},"
        f" {largest.num_inference_steps} steps; beside them {1000 * found.overhead:.0f} ms a job"
        " in which nothing is computed."
    )
    if found.unidentified:
        console.print(f"Not told apart by these shapes: {', '.join(found.unidentified)}.")
    accelerators = next(iter(profile.pools.values())).accelerators
    demand = Demand(shapes=(WeightedShape(**largest.model_dump()),))
    try:
        best = plan(profile, demand, accelerators)
    except DisagfusionError as error:
        console.print(f"{accelerators} of them: {error.message}")
        return
    ratio = ":".join(str(sum(pools.values())) for pools in best.replicas.values())
    console.print(
        f"{accelerators} of them: {' : '.join(best.replicas)} = {ratio},"
        f" {best.throughput:.3g} jobs/s; {best.reason}"
    )
