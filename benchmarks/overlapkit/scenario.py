"""One measurement: a DiT under a steady load over links of one shape."""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.overlapkit.engine import TRACE
from benchmarks.overlapkit.feeder import Feeder, Job
from benchmarks.overlapkit.worker import ENGINE, SHAPE
from benchmarks.overlapkit.workload import Workload, paced
from disagfusion.transport.testing import LinkShape

_ROOT = Path(__file__).resolve().parents[2]
_WARM_UP_SECONDS = 1.5
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Scenario:
    """What is measured.

    Attributes:
        workload: What the DiT is given.
        transfer_seconds: How long a hand-over takes in the mean, to and from the DiT each, as far
            as the link is concerned; 0 for a link that is not shaped.
        jitter: How that varies: fields of a `LinkShape`.
        handover: "async" or "sync".
        depth: Slots for inputs of the DiT, slots for its outputs, hand-overs at a time.
        seconds: For so long, after a warm-up.
        engine_cpus: Where the engine may run; anywhere where empty.
        other_cpus: Where everything else may run.
    """

    workload: Workload = field(default_factory=lambda: paced("sleep", 0.02, 200_000, 200_000))
    transfer_seconds: float = 0.0
    jitter: Mapping[str, float] = field(default_factory=dict)
    handover: str = "async"
    depth: int = 2
    seconds: float = 10.0
    engine_cpus: tuple[int, ...] = ()
    other_cpus: tuple[int, ...] = ()

    def link(self, nbytes: int) -> LinkShape:
        """Return the link over which hand-overs of so many bytes go."""
        rate = nbytes / self.transfer_seconds if self.transfer_seconds else math.inf
        return LinkShape(bytes_per_second=rate, **self.jitter)


@dataclass(frozen=True)
class Outcome:
    """What came of it, within the time that was measured.

    Attributes:
        jobs: Runs of the engine.
        jobs_per_second: Of them.
        compute_ms: The median run.
        idle_share: How much of the time the engine stood still, by its own trace of its runs.
        starved_share: How much of it waiting for an input, by the front's metrics.
        blocked_share: How much of it waiting for room for an output.
        exposed_share: How much of it with a transfer that compute did not hide.
        hidden_share: How much of it with a transfer that compute did hide.
        input_ms: P50, P95 and P99 of a hand-over to the DiT.
        output_ms: The same of a hand-over from it.
        job_ms: The same from an input that is offered to an output that is there.
        problems: Whatever failed.
    """

    jobs: int
    jobs_per_second: float
    compute_ms: float
    idle_share: float
    starved_share: float
    blocked_share: float
    exposed_share: float
    hidden_share: float
    input_ms: tuple[float, float, float]
    output_ms: tuple[float, float, float]
    job_ms: tuple[float, float, float]
    problems: tuple[str, ...]


@contextmanager
def fork_server() -> Iterator[str]:
    """Run a process that forks engines, which need not import torch then; yields its address."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        address = str(directory / "socket")
        settings = {"DISAGFUSION_LISTEN": address}
        process = _spawn("disagfusion.local.forkserver", directory, settings)
        try:
            _ready(process, directory)
            yield address
        finally:
            process.terminate()
            process.wait()


def measure(scenario: Scenario, engines: str) -> Outcome:
    """Start a front and an engine, measure, end them.

    Args:
        scenario: What to measure.
        engines: Of the fork server.

    Raises:
        SystemExit: The front does not work; the message has its log.
    """
    affinity = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = directory / "model"
        model.mkdir()
        for entry in scenario.workload.model.iterdir() if scenario.workload.model else ():
            (model / entry.name).symlink_to(entry)
        if scenario.workload.model is None:
            # By this the front knows a model, though the engine reads nothing of it.
            (model / "model_index.json").write_text("{}")
        process = _start(scenario, directory, model, engines)
        try:
            ready = _ready(process, directory)
            if scenario.other_cpus:
                os.sched_setaffinity(0, scenario.other_cpus)
            seen = asyncio.run(_feed(scenario, ready))
        finally:
            os.sched_setaffinity(0, affinity)
            process.kill()
            process.wait()
        runs = [
            tuple(map(float, line.split())) for line in (model / TRACE).read_text().splitlines()
        ]
    return _outcome(runs, seen)


@dataclass(frozen=True)
class _Seen:
    begin: float
    end: float
    shares: Mapping[str, float]
    jobs: list[Job]
    problems: tuple[str, ...]


async def _feed(scenario: Scenario, ready: Mapping[str, str]) -> _Seen:
    feeder = Feeder(
        ready["address"],
        scenario.link(scenario.workload.latents_bytes),
        backend="ucx",
        depth=scenario.depth,
        workload=scenario.workload,
    )
    async with feeder:
        try:
            await asyncio.wait_for(feeder.first.wait(), _START_SECONDS)
        except TimeoutError:
            raise SystemExit(f"the DiT makes nothing: {feeder.problems}") from None
        if scenario.engine_cpus:
            _pin(await feeder.engine_pid(), scenario.engine_cpus)
        await asyncio.sleep(_WARM_UP_SECONDS)
        before, begin = _metrics(ready["metrics_address"]), time.monotonic()
        await asyncio.sleep(scenario.seconds)
        after, end = _metrics(ready["metrics_address"]), time.monotonic()
        feeder.stop()
        jobs = [job for job in feeder.jobs.values() if begin <= job.delivered < end]
    shares = {name: (after[name] - before[name]) / (end - begin) for name in after}
    return _Seen(begin, end, shares, jobs, tuple(feeder.problems))


def _start(
    scenario: Scenario, directory: Path, model: Path, engines: str
) -> subprocess.Popen[bytes]:
    shape = asdict(scenario.link(scenario.workload.conditioning.nbytes))
    settings = {
        SHAPE: json.dumps({name: value for name, value in shape.items() if value != math.inf}),
        ENGINE: scenario.workload.engine,
        "DISAGFUSION_MODEL": str(model),
        "DISAGFUSION_NAME": "dit",
        "DISAGFUSION_SLOTS": str(scenario.depth),
        "DISAGFUSION_SEND_SLOTS": str(scenario.depth),
        "DISAGFUSION_HANDOVER": scenario.handover,
        "DISAGFUSION_FORK_SERVER": engines,
        "DISAGFUSION_LOG_LEVEL": "warning",
    }
    process = _spawn("benchmarks.overlapkit.worker", directory, settings)
    if scenario.other_cpus:
        _pin(process.pid, scenario.other_cpus)
    return process


def _spawn(module: str, directory: Path, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "OMP_NUM_THREADS": "1",
        "DISAGFUSION_READY_FILE": str(directory / "ready"),
        **settings,
    }
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module], env=environment, stdout=log, stderr=log
        )


def _ready(process: subprocess.Popen[bytes], directory: Path) -> Mapping[str, str]:
    path, deadline = directory / "ready", time.monotonic() + _START_SECONDS
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"a process does not work:\n{(directory / 'log').read_text()}")
        time.sleep(0.02)
    ready: Mapping[str, str] = json.loads(path.read_text())
    return ready


def _pin(pid: int, cpus: tuple[int, ...]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


def _metrics(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()

    def total(name: str, label: str = "") -> float:
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(f"disagfusion_{name}{{") and label in line
        )

    return {
        "starved": total("accelerator_seconds_total", 'state="starved"'),
        "blocked": total("accelerator_seconds_total", 'state="blocked"'),
        "exposed": total("exposed_transfer_seconds_total"),
        "hidden": total("hidden_transfer_seconds_total"),
    }


def _outcome(runs: list[tuple[float, ...]], seen: _Seen) -> Outcome:
    begin, end, shares, jobs = seen.begin, seen.end, seen.shares, seen.jobs
    whole = [(b, e) for b, e in runs if begin <= b and e <= end]
    if len(whole) < 2:
        raise SystemExit(f"{len(whole)} runs in {end - begin:.0f} s: {seen.problems}")
    # From the end of one run to the end of another, so that only whole cycles count.
    cycles, span = whole[1:], whole[-1][1] - whole[0][1]
    return Outcome(
        jobs=len(whole),
        jobs_per_second=len(cycles) / span,
        idle_share=1 - sum(e - b for b, e in cycles) / span,
        compute_ms=statistics.median(e - b for b, e in whole) * 1e3,
        starved_share=shares["starved"],
        blocked_share=shares["blocked"],
        exposed_share=shares["exposed"],
        hidden_share=shares["hidden"],
        input_ms=_percentiles([job.input_seconds for job in jobs]),
        output_ms=_percentiles([job.output_seconds for job in jobs if job.output_seconds]),
        job_ms=_percentiles([job.delivered - job.fed for job in jobs]),
        problems=seen.problems,
    )


def _percentiles(seconds: list[float]) -> tuple[float, float, float]:
    if len(seconds) < 2:
        return (0.0, 0.0, 0.0)
    cuts = statistics.quantiles(seconds, n=100)
    return (cuts[49] * 1e3, cuts[94] * 1e3, cuts[98] * 1e3)
