"""Does the simulator, given what `disagfusion profile` measured, say what a real pipeline does?

    python benchmarks/scheduling_digits.py [--jobs 40] [--shape 64:8] [--ratio 1:2:1] [--share 0.35]

Measures the digits model as `disagfusion profile` does, one job at a time. Then for each ratio of
encoders, DiTs and decoders a small system of real processes draws digits of each shape
(pixels:steps): all jobs at once, which shows throughput, and as they come at random at a share of
the throughput that was predicted, which shows latency. Beside each stands what the simulator says
of the same jobs. Exits with 1 where throughput or P95 differ by more than a tenth.

Each engine has one thread. The simulator gives each replica an accelerator of its own, so each
engine gets a share of a core of its own (a cgroup, which needs root), both as it is measured and as
it serves. With `--share 1` they take what they can: where replicas share cores with one another,
the gateway and this client, they are slower than the simulator says. The table tells how busy the
cores were.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.headlinekit.cgroups import Shares
from benchmarks.reporting import environment
from benchmarks.scheduling_real import generator, percentile
from disagfusion.cli.measuring import measure
from disagfusion.client import Client, Job
from disagfusion.local import LocalRuntime
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.performance.grid import Ranges
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.arrivals import draw_arrivals
from disagfusion.simulation.policies.static import Static
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.workload import Stream, Workload

POOL = "core"
TOLERANCE = 0.10
_SHAPES = 6
_REPEATS = 6
STAGES = ("encoder", "dit", "decoder")


@dataclass(frozen=True)
class Outcome:
    """What became of some jobs, in seconds.

    Attributes:
        throughput: Jobs per second, from the first submission to the last end.
        p50: Median latency.
        p95: 95th percentile of it.
    """

    throughput: float
    p50: float
    p95: float


@dataclass(frozen=True)
class Case:
    """A run and its prediction.

    Attributes:
        ratio: Encoders, DiTs and decoders.
        shape: Pixels and steps.
        load: "backlog", or "poisson".
        busy: Share of all cores' time that anything on the machine took.
    """

    ratio: str
    shape: str
    load: str
    real: Outcome
    simulated: Outcome
    busy: float

    def differences(self) -> dict[str, float]:
        """Return by which share reality is off, for what is judged."""
        judged = ("throughput", "p95") if self.load == "backlog" else ("p95",)
        return {
            name: getattr(self.real, name) / getattr(self.simulated, name) - 1.0 for name in judged
        }


class System:
    """A small system of real processes, whose engines have a share of a core each.

    Args:
        ratio: Encoders, DiTs and decoders.
        share: Of a core; 1 or more for no limit.
    """

    def __init__(self, ratio: Sequence[int], share: float) -> None:
        self._ratio = tuple(ratio)
        self._share = share
        self._stack = ExitStack()

    def __enter__(self) -> Client:
        encoders, dits, decoders = self._ratio
        with self._stack as stack:
            # Groups can be removed once their processes have ended, so they are closed last.
            shares = stack.enter_context(Shares(self._share)) if self._share < 1 else None
            runtime = stack.enter_context(
                LocalRuntime(encoders=encoders, dits=dits, decoders=decoders, threads=1)
            )
            client = stack.enter_context(Client(runtime.address, timeout=600.0))
            engines: set[int] = set()
            while len(engines) < sum(self._ratio):
                for job in jobs_done(client, STAGES * self._ratio[1]):
                    engines |= {record.pid for record in job.stages}
            for pid in engines if shares is not None else ():
                assert shares is not None
                shares.add(pid)
            self._stack = stack.pop_all()
        return client

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def jobs_done(client: Client, words: Sequence[str]) -> list[Job]:
    """Draw one small picture for each word, all at once."""
    handles = [client.submit(f"{word} {number}", num_inference_steps=2, height=64, width=64)
               for number, word in enumerate(words)]  # fmt: skip
    for handle in handles:
        handle.result()
    return [handle.refresh() for handle in handles]


def measure_profile(shapes: Sequence[Shape], share: float) -> Profile:
    """Measure the digits model around these shapes, as `disagfusion profile` does."""
    sizes = tuple(sorted({shape.height for shape in shapes}))
    ranges = Ranges(
        heights=sizes,
        widths=sizes,
        num_inference_steps=tuple(sorted({shape.num_inference_steps for shape in shapes})),
    )
    with System((1, 1, 1), share) as client:
        found = measure(client, ranges, _SHAPES, _REPEATS, print)
    return found.profile(POOL, 16, "measured by this benchmark")


def workload(shape: Shape, ratio: Sequence[int], jobs: int, rate: float | None) -> Workload:
    """Return so many jobs of a shape: at a rate, or all at once."""
    if rate is None:
        stream = Stream(shapes={"one": 1}, every=1e-6, count=jobs)
    else:
        stream = Stream(shapes={"one": 1}, rate=rate, process="poisson", count=jobs)
    initial = {stage: {POOL: count} for stage, count in zip(STAGES, ratio, strict=True)}
    return Workload(shapes={"one": shape}, arrivals=(stream,), initial=initial)


def simulate(what: Workload, profile: Profile) -> Outcome:
    """Run the jobs in simulated time."""
    assert what.initial is not None, "it was given"
    result = Simulation(
        what, profile, Static(), initial=dict(what.initial), generator=generator
    ).run()
    latency = result.latency_seconds
    return Outcome(result.completed / result.last_finish_seconds, latency["p50"], latency["p95"])


def draw(client: Client, what: Workload) -> tuple[Outcome, float]:
    """Run the jobs in real processes; return the share of the cores' time that was used, too."""
    arrivals = list(draw_arrivals(what, len(STAGES), generator))
    idle, begin = _idle_seconds(), time.time()
    handles = []
    for number, arrival in enumerate(arrivals):
        time.sleep(max(0.0, begin + arrival.at - time.time()))
        shape = what.shapes[arrival.shape]
        handles.append(
            client.submit(
                # Each prompt is another: the encoder remembers what it has encoded.
                f"a handwritten seven in red, {time.monotonic_ns()}",
                seed=number,
                height=shape.height,
                width=shape.width,
                num_inference_steps=shape.num_inference_steps,
            )
        )
    jobs = [handle.result().job for handle in handles]
    spans = [(job.submitted_at, job.ended_at) for job in jobs]
    ended = [end.timestamp() for _, end in spans if end is not None]
    latencies = [(e - s).total_seconds() for s, e in spans if s is not None and e is not None]
    seconds = max(ended) - begin
    busy = 1.0 - (_idle_seconds() - idle) / seconds / (os.cpu_count() or 1)
    return (
        Outcome(len(ended) / seconds, percentile(latencies, 0.5), percentile(latencies, 0.95)),
        busy,
    )


def cases(
    ratio: Sequence[int],
    shapes: Sequence[Shape],
    profile: Profile,
    jobs: int,
    load: float,
    share: float,
) -> list[Case]:
    """Run all shapes with a ratio."""
    found = []
    with System(ratio, share) as client:
        for shape in shapes:
            warm, _ = draw(client, workload(shape, ratio, 2 * sum(ratio), None))
            assert warm.throughput > 0.0
            expected = simulate(workload(shape, ratio, jobs, None), profile)
            for name, rate in (("backlog", None), ("poisson", load * expected.throughput)):
                what = workload(shape, ratio, jobs, rate)
                real, busy = draw(client, what)
                found.append(
                    Case(
                        ":".join(map(str, ratio)),
                        f"{shape.height}:{shape.num_inference_steps}",
                        name,
                        real,
                        simulate(what, profile),
                        busy,
                    )
                )
    return found


def _idle_seconds() -> float:
    """Return the seconds that all cores together have been idle since the machine started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[4]) / os.sysconf("SC_CLK_TCK")


def show(found: Sequence[Case], console: Console) -> None:
    """Print what was found."""
    table = Table(box=None, pad_edge=False)
    for column in ("ratio", "shape", "load", "", "jobs/s", "P50 s", "P95 s", "cores busy"):
        table.add_column(column, justify="left" if column in ("load", "") else "right")
    for case in found:
        for kind, one in (("real", case.real), ("simulated", case.simulated)):
            names = (case.ratio, case.shape, case.load) if kind == "real" else ("", "", "")
            busy = f"{100 * case.busy:.0f} %" if kind == "real" else ""
            table.add_row(
                *names, kind, f"{one.throughput:.3f}", f"{one.p50:.3f}", f"{one.p95:.3f}", busy
            )
        off = case.differences()
        table.add_row(
            *("", "", "", "difference"),
            *(f"{100 * off[name]:+.1f} %" if name in off else "" for name in ("throughput", "p50")),
            f"{100 * off['p95']:+.1f} %",
            "",
        )
    console.print(table)
    worst = [abs(value) for case in found for value in case.differences().values()]
    console.print(
        f"{sum(value <= TOLERANCE for value in worst)} of {len(worst)} within"
        f" {100 * TOLERANCE:.0f} %; median {100 * statistics.median(worst):.1f} %,"
        f" worst {100 * max(worst):.1f} %; {os.cpu_count()} cores"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", help="pixels:steps; three by default")
    parser.add_argument("--ratio", action="append", help="two by default")
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--load", type=float, default=0.6, help="share of the predicted throughput")
    parser.add_argument("--share", type=float, default=0.35, help="of a core, for each engine")
    parser.add_argument("--profile", type=Path, help="use this one, and measure nothing")
    parser.add_argument("--output", type=Path, help="write the outcomes here as JSON")
    arguments = parser.parse_args()
    shapes = []
    for text in arguments.shape or ("64:8", "64:16", "64:32"):
        pixels, steps = map(int, text.split(":"))
        shapes.append(Shape(height=pixels, width=pixels, num_inference_steps=steps))
    ratios = [tuple(map(int, one.split(":"))) for one in arguments.ratio or ("1:1:1", "1:2:1")]
    console = Console()
    if arguments.profile is not None:
        profile = parse(Profile, arguments.profile.read_text(), name=arguments.profile.name)
    else:
        profile = measure_profile(shapes, arguments.share)
    found: list[Case] = []
    for ratio in ratios:
        found += cases(ratio, shapes, profile, arguments.jobs, arguments.load, arguments.share)
    show(found, console)
    if arguments.output is not None:
        results = {
            "environment": environment(),
            "share": arguments.share,
            "cases": [asdict(case) | {"differences": case.differences()} for case in found],
        }
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    if any(abs(value) > TOLERANCE for case in found for value in case.differences().values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
