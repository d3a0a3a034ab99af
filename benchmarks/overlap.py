"""How much of the hand-overs a DiT hides behind its compute, whatever the network does.

    python benchmarks/overlap.py [--seconds 15] [--output benchmarks/results] [--part jitter]

A front and an engine, as in production, between an encoder that always has work and a decoder that
is fast. The links are emulated: the bytes really go through UCX, and are held back until they would
have arrived. So is the accelerator where nothing else is said: the engine sleeps for 20 ms a job,
and transfers take 10 ms each way. The real digits model and real multiplications follow. A run
takes half an hour. What the front says of itself is set beside a trace that the engine writes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.overlapkit.scenario import Outcome, Scenario, fork_server, measure
from benchmarks.overlapkit.workload import digits, paced
from benchmarks.reporting import environment, two_plots

COMPUTE, TRANSFER = 0.020, 0.010
JITTERS: Mapping[str, Mapping[str, float]] = {
    "none": {},
    "50 %": {"jitter": 0.5},
    "heavy tail": {"tail": 1.5},
    "stall": {"stall_every": 60.0, "stall_seconds": 1.0},
}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "sync": {"handover": "sync"},
    **{f"async, depth {depth}": {"depth": depth} for depth in (1, 2, 3, 4)},
}
# Long enough for one stall.
STALL_SECONDS = 62.0
RATIOS = (0.002, 0.02, 0.1, 0.25, 0.5, 1.0)
SWEPT = ("sync", "async, depth 1", "async, depth 2")
NO_LINK = "as it is"
MEBIBYTE = 1 << 20
VIDEO_ROUNDS = 5
_WIDTH = 150


@dataclass(frozen=True)
class Report:
    """What is written as JSON.

    Attributes:
        environment: Where it was measured.
        jitter: Outcomes by jitter and way of handing over.
        sweep: Jobs a second as a share of the ideal, by jitter, way and transfer/compute.
        digits: Outcomes of the real digits model by link and way of handing over; and those of an
            engine that sleeps as long, over links as they are.
        video: Hand-overs of a video's size beside real work, on a core of its own.
    """

    environment: Mapping[str, Any]
    jitter: Mapping[str, Mapping[str, Outcome]]
    sweep: Mapping[str, Mapping[str, Mapping[str, float]]]
    digits: Mapping[str, Mapping[str, Outcome]]
    video: Mapping[str, Mapping[str, Outcome]]


def ideal() -> Mapping[str, float]:
    """Return what is best in theory, in jobs a second."""
    return {"async": 1 / max(COMPUTE, TRANSFER), "sync": 1 / (COMPUTE + 2 * TRANSFER)}


def run_jitter(engines: str, seconds: float) -> dict[str, dict[str, Outcome]]:
    """Measure every way of handing over under every jitter."""
    outcomes: dict[str, dict[str, Outcome]] = {}
    for jitter in JITTERS:
        length = max(seconds, STALL_SECONDS) if jitter == "stall" else seconds
        for way, options in WAYS.items():
            scenario = Scenario(
                transfer_seconds=TRANSFER, jitter=JITTERS[jitter], seconds=length, **options
            )
            outcomes.setdefault(jitter, {})[way] = _told(f"{jitter}, {way}", scenario, engines)
    return outcomes


def run_sweep(engines: str, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Measure the share of the ideal over the ratio of transfer to compute."""
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for jitter in ("none", "heavy tail"):
        for way in SWEPT:
            for ratio in RATIOS:
                scenario = Scenario(
                    transfer_seconds=ratio * COMPUTE,
                    jitter=JITTERS[jitter],
                    seconds=seconds / 2,
                    **WAYS[way],
                )
                outcome = _told(f"transfer/compute {ratio}, {jitter}, {way}", scenario, engines)
                best = 1 / COMPUTE
                by_way = shares.setdefault(jitter, {}).setdefault(way, {})
                by_way[str(ratio)] = outcome.jobs_per_second / best
    return shares


def run_digits(engines: str, seconds: float) -> dict[str, dict[str, Outcome]]:
    """Measure the real model, over links as they are and with transfers of half its compute."""
    outcomes: dict[str, dict[str, Outcome]] = {NO_LINK: {}}
    for way in SWEPT:
        scenario = Scenario(workload=digits(), seconds=seconds, **WAYS[way])
        outcomes[NO_LINK][way] = _told(f"digits, {way}", scenario, engines)
    compute = outcomes[NO_LINK]["async, depth 2"].compute_ms / 1e3
    # Alike but for its work: what is more with the real model is what real work costs hand-overs.
    asleep = paced("sleep", compute, digits().conditioning.nbytes, digits().latents_bytes)
    scenario = Scenario(workload=asleep, seconds=seconds)
    outcomes[NO_LINK]["asleep, depth 2"] = _told("as long asleep", scenario, engines)
    for jitter in ("none", "heavy tail"):
        name = f"half of compute, jitter: {jitter}"
        for way in SWEPT:
            scenario = Scenario(
                workload=digits(),
                transfer_seconds=compute / 2,
                jitter=JITTERS[jitter],
                seconds=seconds,
                **WAYS[way],
            )
            outcomes.setdefault(name, {})[way] = _told(f"digits, {name}, {way}", scenario, engines)
    return outcomes


def run_video(engines: str, seconds: float) -> dict[str, dict[str, Outcome]]:
    """Measure what hand-overs of 20 and 42 MiB cost the compute beside them.

    The engine has the last core for itself and one thread, everything else the others. With and
    without take turns, since the machine's speed is not its own; the medians count.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return {}
    sizes = {"64 bytes": (64, 64), "20 and 42 MiB": (20 * MEBIBYTE, 42 * MEBIBYTE)}
    outcomes: dict[str, dict[str, Outcome]] = {}
    for work, amount in (("multiply", 40), ("copy", 100)):
        base = Scenario(
            seconds=seconds,
            engine_cpus=(cpus[-1],),
            other_cpus=tuple(cpus[:-1]),
        )
        taken: dict[str, list[Outcome]] = {size: [] for size in sizes}
        for _ in range(VIDEO_ROUNDS):
            for size, (into, out) in sizes.items():
                scenario = replace(base, workload=paced(work, amount, into, out))
                taken[size].append(_told(f"{work}, {size}", scenario, engines))
        outcomes[work] = {
            size: sorted(runs, key=lambda it: it.compute_ms)[len(runs) // 2]
            for size, runs in taken.items()
        }
    return outcomes


def _told(name: str, scenario: Scenario, engines: str) -> Outcome:
    outcome = measure(scenario, engines)
    print(
        f"{name}: {outcome.jobs_per_second:.1f} jobs/s, idle {outcome.idle_share:.1%},"
        f" exposed {outcome.exposed_share:.1%}",
        file=sys.stderr,
    )
    return outcome


def show(report: Report, console: Console) -> None:
    """Print the tables."""
    best = ideal()
    for jitter, outcomes in report.jitter.items():
        title = f"compute 20 ms, transfers 10 ms each way, jitter: {jitter}"
        ideals = {way: best["sync" if way == "sync" else "async"] for way in outcomes}
        console.print(_ways(title, outcomes, ideals))
    for name, outcomes in report.digits.items():
        title = f"the digits model, transfers: {name}"
        # The machine's speed is not its own: each run's compute is its own ideal.
        ideals = {way: 1e3 / it.compute_ms for way, it in outcomes.items()}
        console.print(_ways(title, outcomes, ideals))
    for jitter, ways in report.sweep.items():
        table = Table(
            *("transfer/compute", *map(str, RATIOS)),
            title=f"share of 1/compute, jitter: {jitter}",
        )
        for way, shares in ways.items():
            table.add_row(way, *(f"{share:.1%}" for share in shares.values()))
        console.print(table)
    for work, by_size in report.video.items():
        alone, beside = by_size.values()
        console.print(
            f"{work}, alone on its core: {alone.compute_ms:.0f} ms a run,"
            f" beside hand-overs of 20 and 42 MiB {beside.compute_ms:.0f} ms"
            f" ({beside.compute_ms / alone.compute_ms - 1:+.1%}); exposed"
            f" {beside.exposed_share:.1%}, idle {beside.idle_share:.1%}"
        )


def _ways(title: str, outcomes: Mapping[str, Outcome], ideals: Mapping[str, float]) -> Table:
    table = Table(
        *("hand-over", "jobs/s", "of ideal", "idle (trace)", "starved", "exposed", "hidden"),
        *("to DiT, ms P50/95/99", "from DiT", "job"),
        title=title,
    )
    for way, it in outcomes.items():
        table.add_row(
            *(way, f"{it.jobs_per_second:.1f}", f"{it.jobs_per_second / ideals[way]:.1%}"),
            *(f"{it.idle_share:.1%}", f"{it.starved_share:.1%}", f"{it.exposed_share:.1%}"),
            *(f"{it.hidden_share:.1%}", _three(it.input_ms), _three(it.output_ms)),
            _three(it.job_ms),
        )
    return table


def _three(milliseconds: tuple[float, float, float]) -> str:
    return "/".join(f"{value:.3g}" for value in milliseconds)


def plot(report: Report, path: Path) -> None:
    """Draw the sweep."""
    with two_plots(path) as axes:
        for axis, (jitter, ways) in zip(axes, report.sweep.items(), strict=True):
            for way, shares in ways.items():
                axis.semilogx(list(RATIOS), list(shares.values()), marker="o", label=way)
            axis.plot(
                RATIOS, [1 / (1 + 2 * r) for r in RATIOS], ":", color="grey", label="1/(1 + 2r)"
            )
            axis.set_title(f"jitter: {jitter}")
            axis.set_xlabel("transfer/compute r, each way")
        axes[0].set_ylabel("jobs a second, share of 1/compute")
        axes[0].set_ylim(0, 1.05)


PARTS: Mapping[str, Callable[[str, float], Any]] = {
    "jitter": run_jitter,
    "sweep": run_sweep,
    "digits": run_digits,
    "video": run_video,
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each measurement")
    parser.add_argument("--output", type=Path, help="a directory for overlap.{json,txt,svg}")
    parser.add_argument("--part", choices=tuple(PARTS), help="measure this, keep what is there")
    arguments = parser.parse_args()
    file = arguments.output and arguments.output / "overlap.json"
    known = json.loads(file.read_text()) if arguments.part and file and file.exists() else {}
    taken = {
        "environment": {
            **environment(),
            "accelerator": "emulated (the engine sleeps) but for digits and video",
            "links": "emulated: arrivals are held back",
        },
        "jitter": _outcomes(known.get("jitter", {})),
        "sweep": known.get("sweep", {}),
        "digits": _outcomes(known.get("digits", {})),
        "video": _outcomes(known.get("video", {})),
    }
    with fork_server() as engines:
        for part, measured in PARTS.items():
            if arguments.part in (None, part):
                taken[part] = measured(engines, arguments.seconds)
    report = Report(**taken)
    show(report, Console(width=None if sys.stdout.isatty() else _WIDTH))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(report), indent=2) + "\n")
        with (arguments.output / "overlap.txt").open("w") as text:
            show(report, Console(file=text, width=_WIDTH))
        plot(report, arguments.output / "overlap.svg")


def _outcomes(known: Mapping[str, Any]) -> dict[str, dict[str, Outcome]]:
    return {
        name: {which: Outcome(**fields) for which, fields in by.items()}
        for name, by in known.items()
    }


if __name__ == "__main__":
    main()
