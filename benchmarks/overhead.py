"""What the system costs on top of computing: latency, throughput, memory.

    python benchmarks/overhead.py [--jobs 1000] [--concurrency 16] [--serial 200] [--json]

Draws digits through an embedded system (gateway, encoder, DiT, decoder as processes, tensors over
UCX) and the SDK, the prompt cache turned off, and reports

- latency at concurrency 1: end to end minus the sum of the stages' compute seconds. End to end is
  from the call of `generate` to the encoded picture's bytes in the caller's hands, so it includes
  submitting, store commits, both hand-overs, the commit of the result and fetching it;
- throughput with many jobs under way, against one job at a time, and against the unsplit diffusers
  pipeline in one process on the same cores, which also encodes PNG (unsplit.py);
- resident memory of every process over the jobs; what grows after the first 300 must be noise.

Exits with 1 unless every job succeeded and no process grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.memory import Growth, MemoryLog
from disagfusion.client import AsyncClient, GenerationResult
from disagfusion.local import LocalRuntime
from disagfusion.local.deployment import DIGITS

DIGIT_NAMES = "zero one two three four five six seven eight nine".split()
COLOURS = "red green blue orange purple".split()
OPTIONS: dict[str, Any] = {"num_inference_steps": 8, "height": 64, "width": 64}
PARAMETERS = {"max_sequence_length": 32}
SETTLED_AFTER = 300
"""Jobs after which no process has a reason to grow any more."""


@dataclass(frozen=True)
class Latency:
    """Of jobs one at a time, in milliseconds; overhead is end to end minus compute."""

    jobs: int
    end_to_end_median: float
    compute_median: float
    overhead_median: float
    overhead_p99: float
    jobs_per_second: float


@dataclass(frozen=True)
class Report:
    """All that was measured."""

    cores: int
    threads: dict[str, int]
    transports: list[str]
    sqlite_synchronous: str
    latency: Latency
    jobs: int
    concurrency: int
    succeeded: int
    pipelined_jobs_per_second: float
    unsplit_jobs_per_second: dict[str, float]
    memory: list[Growth]

    @property
    def good(self) -> bool:
        """Whether every job succeeded and no process grew beyond noise."""
        return self.succeeded == self.jobs and not any(entry.beyond_noise for entry in self.memory)


def prompt(number: int) -> str:
    return f"a handwritten {DIGIT_NAMES[number % 10]} in {COLOURS[number // 10 % 5]}"


async def draw(client: AsyncClient, number: int) -> GenerationResult:
    return await client.generate(prompt(number), seed=number, parameters=PARAMETERS, **OPTIONS)


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(share * 1000) // 1000) - 1)]


async def measure_latency(client: AsyncClient, jobs: int) -> tuple[Latency, list[GenerationResult]]:
    results, total, compute = [], [], []
    begin = time.perf_counter()
    for number in range(jobs):
        start = time.perf_counter()
        result = await draw(client, number)
        total.append(1e3 * (time.perf_counter() - start))
        compute.append(1e3 * sum(record.compute_seconds for record in result.stages))
        results.append(result)
    seconds = time.perf_counter() - begin
    overhead = [whole - part for whole, part in zip(total, compute, strict=True)]
    return (
        Latency(
            jobs=jobs,
            end_to_end_median=statistics.median(total),
            compute_median=statistics.median(compute),
            overhead_median=statistics.median(overhead),
            overhead_p99=percentile(overhead, 0.99),
            jobs_per_second=jobs / seconds,
        ),
        results,
    )


async def measure_throughput(
    client: AsyncClient, jobs: int, concurrency: int, memory: MemoryLog
) -> tuple[int, float]:
    """Return how many jobs succeeded, and jobs per second."""
    numbers = iter(range(jobs))
    succeeded = 0

    async def worker() -> None:
        nonlocal succeeded
        for number in numbers:
            result = await draw(client, number)
            succeeded += len(result.outputs) == 1 and result.outputs[0].content[1:4] == b"PNG"
            if succeeded % 10 == 0:
                memory.sample(succeeded)

    begin = time.perf_counter()
    outcomes = await asyncio.gather(*(worker() for _ in range(concurrency)), return_exceptions=True)
    seconds = time.perf_counter() - begin
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            print(f"a job did not succeed: {outcome!r}", file=sys.stderr)
    return succeeded, succeeded / seconds


def measure_unsplit(jobs: int, threads: int) -> float:
    """Return jobs per second of the unsplit pipeline in a process of its own."""
    jobs_file = [
        {"prompt": prompt(number), "seed": number, **OPTIONS, **PARAMETERS}
        for number in range(jobs)
    ]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("unsplit.py"), str(DIGITS), str(threads)],
        input=json.dumps(jobs_file),
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        timeout=1800,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["jobs_per_second"])


async def measure(arguments: argparse.Namespace) -> Report:
    cores = len(os.sched_getaffinity(0))
    settings = {"prompt_cache_bytes": "0", "database_synchronous": arguments.synchronous}
    with LocalRuntime(transport=arguments.transport, settings=settings) as runtime:
        async with AsyncClient(runtime.address) as client:
            await measure_latency(client, 20)  # lazy imports and first pages
            latency, results = await measure_latency(client, arguments.serial)
            engines = {r.pid: f"engine {r.stage.name.lower()}" for r in results[-1].stages}
            names = {process.pid: process.name for process in runtime.status()}
            memory = MemoryLog({**names, **engines})
            succeeded, rate = await measure_throughput(
                client, arguments.jobs, arguments.concurrency, memory
            )
    unsplit = {
        f"{threads} threads": measure_unsplit(arguments.serial, threads)
        for threads in sorted({1, cores})
    }
    records = results[-1].stages
    return Report(
        cores=cores,
        threads={record.stage.name.lower(): record.threads for record in records},
        transports=sorted({record.transport for record in records if record.transport}),
        sqlite_synchronous=arguments.synchronous,
        latency=latency,
        jobs=arguments.jobs,
        concurrency=arguments.concurrency,
        succeeded=succeeded,
        pipelined_jobs_per_second=rate,
        unsplit_jobs_per_second=unsplit,
        memory=memory.growth(SETTLED_AFTER),
    )


def show(report: Report, console: Console) -> None:
    latency = report.latency
    table = Table(title="digits, 64×64, 8 steps", title_justify="left", show_header=False)
    rows = {
        "cores, threads": f"{report.cores}, {report.threads}",
        "transport": ", ".join(report.transports),
        "SQLite synchronous": report.sqlite_synchronous,
        "one at a time": f"{latency.jobs_per_second:.2f} jobs/s",
        "  end to end, median": f"{latency.end_to_end_median:.1f} ms",
        "  compute of the stages, median": f"{latency.compute_median:.1f} ms",
        "  overhead, median": f"{latency.overhead_median:.1f} ms",
        "  overhead, P99": f"{latency.overhead_p99:.1f} ms",
        f"{report.concurrency} under way": f"{report.pipelined_jobs_per_second:.2f} jobs/s, "
        f"{report.succeeded} of {report.jobs} succeeded",
        "  against one at a time": (
            f"{report.pipelined_jobs_per_second / latency.jobs_per_second:.2f} ×"
        ),
    }
    for name, rate in report.unsplit_jobs_per_second.items():
        rows[f"unsplit pipeline, {name}"] = f"{rate:.2f} jobs/s"
        rows[f"  {report.concurrency} under way against it, {name}"] = (
            f"{report.pipelined_jobs_per_second / rate:.2f} ×"
        )
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    memory = Table(title=f"resident memory after {SETTLED_AFTER} jobs", title_justify="left")
    for name in ("process", "MiB", "growth, MiB", "noise, MiB", "verdict"):
        memory.add_column(name, justify="left" if name in ("process", "verdict") else "right")
    for entry in report.memory:
        memory.add_row(
            entry.process,
            f"{entry.resident:.1f}",
            f"{entry.growth:+.2f}",
            f"{entry.noise:.2f}",
            "grows" if entry.beyond_noise else "steady",
        )
    console.print(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--serial", type=int, default=200, help="jobs one at a time")
    parser.add_argument("--transport", default="ucx")
    parser.add_argument(
        "--synchronous", default="FULL", choices=["FULL", "NORMAL"], help="SQLite's"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    report = asyncio.run(measure(arguments))
    if arguments.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        show(report, Console())
    raise SystemExit(0 if report.good else 1)


if __name__ == "__main__":
    main()
