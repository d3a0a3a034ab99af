"""A model that does not fit the memory of one process: stages against unsplit pipelines, measured.

    python benchmarks/headline_real.py --directory DIR [--limit 1280] [--jobs 30] [--rate 0.3]
        [--systems split,offloading,mapped,resident,too-small] [--out benchmarks/results]

Draws pictures with random weights of 1.4 GiB. Each process of a system is in a cgroup with a limit
of memory, in which the page cache of the files that it reads counts:

    split       encoder, DiT and decoder, each with its front, each within the limit
    offloading  as many unsplit diffusers pipelines within the same limit each, with diffusers'
                group offloading to files
    mapped      the same without offloading: weights stay mapped files, and the kernel drops pages
    resident    the same with all weights copied into memory, without a limit
    too-small   one such pipeline within the limit; it has to be killed, or the limit proves nothing

Each system draws all jobs at once, then the same jobs at times drawn from a Poisson process, the
same for each. All pictures must be equal, pixel by pixel. Needs root, for the groups. DIR keeps
the model between runs and must be on a disk, not in memory. Systems may be measured one by one:
what is in the report already is kept where the settings are the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.headlinekit.cgroups import Hierarchy, find_hierarchy
from benchmarks.headlinekit.model import OPTIONS, make_model, weights
from benchmarks.headlinekit.systems import System, copies_of, monoliths, split
from benchmarks.reporting import environment
from disagfusion.errors import DisagfusionError, FailedPreconditionError

SYSTEMS = ("split", "offloading", "mapped", "resident", "too-small")
PROCESSES = 3
RESULTS = Path(__file__).parent / "results"
_FILE = "headline_real.json"


@dataclass(frozen=True)
class Paced:
    """Jobs that come one by one: seconds from a job's time to its picture."""

    p50: float
    p95: float
    mean: float


@dataclass(frozen=True)
class Outcome:
    """What was measured of a system.

    Attributes:
        processes: How many there are.
        jobs_per_second: With all jobs there from the start.
        alone_seconds: A job while there is no other; the median of three.
        paced: With jobs that come at the given rate.
        pictures: Digest of each job's pixels.
        memory: Of each process, at the end.
    """

    processes: int
    jobs_per_second: float
    alone_seconds: float
    paced: Paced
    pictures: list[str]
    memory: dict[str, Any]


def nearest_rank(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def arrivals(jobs: int, rate: float, seed: int = 0) -> list[float]:
    """Return the seconds at which jobs come: a Poisson process, the same for the same seed."""
    chance, at, times = random.Random(seed), 0.0, []
    for _ in range(jobs):
        at += chance.expovariate(rate)
        times.append(at)
    return times


def digest(picture: bytes) -> str:
    """Return what is the same for the same pixels, however they are encoded."""
    with Image.open(io.BytesIO(picture)) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()[:16]


async def measure(system: System, jobs: int, rate: float) -> Outcome:
    """Draw all jobs at once, then one by one at their times."""
    await asyncio.gather(*(system.draw(number) for number in range(system.processes)))
    alone = []
    for number in range(3):
        began = time.perf_counter()
        await system.draw(number)
        alone.append(time.perf_counter() - began)
    began = time.perf_counter()
    pictures = await asyncio.gather(*(system.draw(number) for number in range(jobs)))
    seconds = time.perf_counter() - began

    async def at(when: float, number: int) -> tuple[float, bytes]:
        await asyncio.sleep(began + when - time.perf_counter())
        picture = await system.draw(number)
        return time.perf_counter() - began - when, picture

    began = time.perf_counter()
    found = await asyncio.gather(*(at(t, n) for n, t in enumerate(arrivals(jobs, rate))))
    latencies = [latency for latency, _ in found]
    digests = [digest(picture) for picture in pictures]
    if digests != [digest(picture) for _, picture in found]:
        raise FailedPreconditionError("a system draws the same job differently the second time")
    return Outcome(
        processes=system.processes,
        jobs_per_second=jobs / seconds,
        alone_seconds=statistics.median(alone),
        paced=Paced(
            nearest_rank(latencies, 0.5), nearest_rank(latencies, 0.95), statistics.mean(latencies)
        ),
        pictures=digests,
        memory={name: asdict(memory) for name, memory in system.memory().items()},
    )


@contextlib.asynccontextmanager
async def start(
    name: str, hierarchy: Hierarchy, limit: int, directory: Path
) -> AsyncIterator[System]:
    """Start a system by its name."""
    model, scratch = directory / "model", directory / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    if name == "split":
        started = split(hierarchy, limit, model, scratch)
    else:
        mode = "resident" if name == "too-small" else name
        copies = list(copies_of(model, 1 if name == "too-small" else PROCESSES, directory))
        bound = None if name == "resident" else limit
        started = monoliths(hierarchy, bound, mode, copies, scratch)
    async with started as system:
        yield system


async def fits(hierarchy: Hierarchy, limit: int, directory: Path) -> bool:
    """Tell whether one pipeline with all weights in memory can draw within the limit."""
    try:
        async with start("too-small", hierarchy, limit, directory) as system:
            await system.draw(0)
    except FailedPreconditionError as error:
        if error.reason != "OUT_OF_MEMORY":
            raise
        return False
    return True


def show(report: dict[str, Any]) -> str:
    """Return the report as text."""
    settings, systems = report["settings"], report["systems"]
    megabytes = {name: size / 2**20 for name, size in report["weights"].items()}
    lines = [
        "A model that does not fit the memory of one process, really measured",
        f"{report['environment']['cpus']} cores, cgroup version {report['cgroup_version']};"
        f" weights {sum(megabytes.values()):.0f} MiB ("
        + ", ".join(f"{name} {size:.0f}" for name, size in megabytes.items() if size > 1)
        + f"); limit {settings['limit']} MiB a process,",
        f"page cache included; {settings['jobs']} jobs, {OPTIONS['num_inference_steps']} steps,"
        f" one thread each; paced: a Poisson process of {settings['rate']:g} jobs/s",
        "",
        f"{'system':12} {'processes':>9} {'jobs/s':>7} {'alone s':>8} {'P50 s':>7} {'P95 s':>7}"
        f" {'peak MiB':>9} {'cache MiB':>9} {'anon. MiB':>9} {'read again MiB':>14}",
    ]
    for name in (name for name in SYSTEMS if name in systems):
        one = systems[name]
        memory = one["memory"].values()
        lines.append(
            f"{name:12} {one['processes']:9d} {one['jobs_per_second']:7.3f}"
            f" {one['alone_seconds']:8.2f} {one['paced']['p50']:7.2f} {one['paced']['p95']:7.2f}"
            f" {max(m['peak'] for m in memory):9.0f} {max(m['page_cache'] for m in memory):9.0f}"
            f" {max(m['anonymous'] for m in memory):9.0f}"
            f" {sum(m['read_again'] for m in memory):14.0f}"
        )
    lines += [
        "",
        "peak, cache, anonymous: of the process that has most of it; read again: weights that were",
        "dropped from the page cache at the limit and read from the disk again, of all processes",
    ]
    if "fits" in report:
        fate = "fits" if report["fits"] else "is killed for want of memory"
        lines += ["", f"One unsplit pipeline with all weights in memory, within the limit: {fate}."]
    if len(systems) > 1:
        alike = "are equal, pixel by pixel" if equal(report) else "DIFFER"
        lines.append(f"The pictures of {', '.join(systems)} {alike}.")
    return "\n".join(lines) + "\n"


def equal(report: dict[str, Any]) -> bool:
    """Tell whether all systems drew the same pictures."""
    pictures = [one["pictures"] for one in report["systems"].values()]
    return all(one == pictures[0] for one in pictures)


def earlier(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the report that is there, if its settings are these."""
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        if found["settings"] == settings:
            return found
    return {"settings": settings, "systems": {}}


def prepare(model: Path) -> None:
    """Make the model unless it is there."""
    if not (model / "model_index.json").exists():
        shutil.rmtree(model, ignore_errors=True)
        make_model(model)


async def run(arguments: argparse.Namespace, report: dict[str, Any]) -> AsyncIterator[None]:
    """Measure what was asked for, and write it into the report; yield after each system."""
    hierarchy = find_hierarchy()
    directory: Path = arguments.directory
    prepare(directory / "model")
    report |= {
        "weights": weights(directory / "model"),
        "cgroup_version": hierarchy.version,
        "environment": environment(),
    }
    for name in arguments.systems:
        load = os.getloadavg()[0]
        if name == "too-small":
            report["fits"] = await fits(hierarchy, arguments.limit, directory)
            yield
            continue
        async with start(name, hierarchy, arguments.limit, directory) as system:
            outcome = await measure(system, arguments.jobs, arguments.rate)
        report["systems"][name] = {**asdict(outcome), "load_before": load}
        yield


async def run_and_write(arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    """Measure, and write the report after each system."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / _FILE
    async for _ in run(arguments, report):
        file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        file.with_suffix(".txt").write_text(show(report), encoding="utf-8")


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1280, help="MiB for each process")
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=0.3, help="jobs a second, paced")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if unknown := set(arguments.systems) - set(SYSTEMS):
        parser.error(f"--systems: {', '.join(sorted(unknown))} (expected {', '.join(SYSTEMS)})")
    return arguments


def main() -> int:
    """Run from the command line; 1 if pictures differ or the whole model fits the limit."""
    arguments = parse()
    # So that groups and processes are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = {"limit": arguments.limit, "jobs": arguments.jobs, "rate": arguments.rate}
    report = earlier(arguments.out / _FILE, settings | OPTIONS)
    try:
        asyncio.run(run_and_write(arguments, report))
    except DisagfusionError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    print(show(report), end="")
    return 0 if equal(report) and not report.get("fits", False) else 1


if __name__ == "__main__":
    sys.exit(main())
