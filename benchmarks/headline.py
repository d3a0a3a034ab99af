"""A model that does not fit one accelerator: split, against unsplit pipelines, simulated.

    python benchmarks/headline.py [--seeds 10] [--profiles NAME,...] [--out benchmarks/results]

Three profiles of published stage times (examples/profiles) under W3's rates of Poisson arrivals:
eight small accelerators with DisagFusion, in the exact plan's ratio and with the balancer; eight
of the same with unsplit pipelines that offload weights; eight bigger and dearer ones with unsplit
pipelines whose weights are resident. Then the rate at which each saturates, and for each rate the
smallest fleet of each kind that keeps 95 % of the jobs within the objective.

Everything is derived from published times and simulated; nothing here was measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.headlinekit.simulated import (
    ATTAINED,
    BUDGET,
    Figures,
    System,
    figures,
    mixed,
    monolith,
    objective,
    saturation,
    smallest,
    split,
    systems,
)
from benchmarks.reporting import environment
from benchmarks.schedulingkit.runs import load
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.workload import Workload

RATES = (0.01, 0.028, 0.045, 0.065, 0.085)
LABEL = "Derived from published times, simulated: no measurement."
PROFILES: dict[str, Shape] = {
    "wan2.2-i2v-a10-h100": Shape(height=480, width=832, num_frames=81, num_inference_steps=4),
    "wan2.1-t2v-4090-h100": Shape(height=480, width=832, num_frames=81, num_inference_steps=4),
    "qwen-image-4090-h100": Shape(height=928, width=1664, num_inference_steps=8),
}
"""Profiles, and the job that their seconds are about."""

RESULTS = Path(__file__).parent / "results"
HYPOTHETICAL = "hypothetical"
"""The name, in a profile, of a monolith on an accelerator that does not exist."""

_W3_PROFILE = "wan2.2-i2v-a10-h100"
_SIZING_SEEDS = 5
_HEAD = (
    f"{'jobs/s':>7} {'system':24} {'done/s':>7} {'P50 s':>7} {'P95 s':>7} {'attained':>8}"
    f" {'cost/1000':>9}"
)


class Lines(list[str]):
    """A text that is printed while it is written."""

    def add(self, line: str) -> None:
        """Add a line."""
        self.append(line)
        print(line, flush=True)


def workload_for(name: str) -> tuple[Workload, Profile]:
    """Return W3 with the shape and the objective of a profile, and the profile."""
    workload, profile = load("w3", name)
    (shape,) = workload.shapes
    changed = workload.model_copy(update={"shapes": {shape: PROFILES[name]}, "initial": None})
    if name == _W3_PROFILE:
        return changed, profile
    measure = workload.measure.model_copy(
        update={"objective_seconds": round(objective(profile, changed), 1)}
    )
    return changed.model_copy(update={"measure": measure}), profile


def at_rate(workload: Workload, rate: float) -> Workload:
    """Return the same jobs at another rate."""
    given = workload.arrivals[0].rate
    assert given is not None, "W3 has a rate"
    return workload.at_load(rate / given)


def winners(rows: Sequence[tuple[System, Figures]]) -> dict[str, list[str]]:
    """Return who is best in a row, ties included: in P95, and in cost of those that attain.

    Accelerators that do not exist win nothing.
    """
    real = [(system, one) for system, one in rows if HYPOTHETICAL not in system.name]
    enough = [(system, one) for system, one in real if one.attainment >= ATTAINED]
    return {
        "p95": _least([(system.name, one.p95) for system, one in real]),
        "cost": _least([(system.name, one.cost) for system, one in enough]),
    }


def _least(values: Sequence[tuple[str, float]]) -> list[str]:
    best = min((value for _, value in values), default=0.0)
    return [name for name, value in values if value <= 1.001 * best]


def part_rates(
    workload: Workload, profile: Profile, seeds: int, lines: Lines
) -> list[dict[str, Any]]:
    """Simulate every system at every rate."""
    found = []
    lines.add(_HEAD)
    for rate in RATES:
        what = at_rate(workload, rate)
        rows = [(system, figures(system, what, seeds)) for system in systems(profile, what)]
        best = winners(rows)
        for system, one in rows:
            lines.add(
                f"{rate:7.3f} {system.name:24} {one.throughput:7.4f} {one.p50:7.1f} {one.p95:7.1f}"
                f" {one.attainment:8.3f} {one.cost:9.2f}"
            )
        cheapest = " and ".join(best["cost"]) or "nobody attains 95 %"
        lines.add(f"        least P95: {' and '.join(best['p95'])}; least cost: {cheapest}")
        found.append(
            {
                "rate": rate,
                "systems": {system.name: asdict(one) for system, one in rows},
                "winners": best,
            }
        )
    return found


def part_saturation(
    workload: Workload, profile: Profile, lines: Lines
) -> dict[str, dict[str, float]]:
    """Find the rate at which each system's queue begins to grow."""
    found = {}
    lines.add(f"\n{'':8}{'system':24} {'saturates at jobs/s':>20} {'cost/1000 there':>16}")
    for system in systems(profile, workload):
        rate = saturation(system, workload)
        cost = 1000 * system.cost_per_hour / 3600 / rate
        found[system.name] = {"jobs_per_second": rate, "cost": cost}
        lines.add(f"{'':8}{system.name:24} {rate:20.4f} {cost:16.2f}")
    return found


def size_of(system: System | None, rate: float) -> dict[str, Any]:
    """Return a fleet and its price for 1,000 jobs at a rate; nothing where none is enough."""
    if system is None:
        return {"accelerators": {}}
    cost = 1000 * system.cost_per_hour / 3600 / rate
    return {"accelerators": system.accelerators, "cost": cost}


def part_smallest(
    workload: Workload, profile: Profile, seeds: int, lines: Lines
) -> dict[str, dict[str, dict[str, Any]]]:
    """Find the smallest fleet of each kind that is enough, at each rate."""
    stages = len(profile.stages)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    lines.add(
        f"\n jobs/s smallest fleet of at most {BUDGET} of a kind that attains"
        f" {100 * ATTAINED:.0f} %, and its cost/1000"
    )
    for rate in RATES:
        what = at_rate(workload, rate)
        kinds = {
            "split": [split(profile, what, count) for count in range(stages, BUDGET + 1)],
            "split, mixed": mixed(profile, what, rate),
            **{
                name: [monolith(profile, name, count) for count in range(1, BUDGET + 1)]
                for name in profile.monoliths
            },
        }
        sizes = {kind: smallest(options, what, seeds) for kind, options in kinds.items()}
        entry = {kind: size_of(system, rate) for kind, system in sizes.items()}
        real = [
            (kind, one["cost"])
            for kind, one in entry.items()
            if "cost" in one and kind != HYPOTHETICAL
        ]
        best = _least(real)
        for kind, one in entry.items():
            fleet = " + ".join(f"{n} {pool}" for pool, n in one["accelerators"].items() if n)
            cost = f"{one['cost']:9.2f}" if "cost" in one else f"{'none':>9}"
            mark = "  least" if kind in best else ""
            lines.add(f"{rate:7.3f} {kind:14} {fleet:24} {cost}{mark}")
        found[str(rate)] = entry
    return found


def run(name: str, seeds: int, lines: Lines) -> dict[str, Any]:
    """Print a profile's tables, and return them."""
    workload, profile = workload_for(name)
    limit = workload.measure.objective_seconds
    lines.add(f"\n== {profile.name}")
    lines.add(f"   objective {limit} s; cost in the profile's dollars for 1,000 jobs")
    return {
        "profile": name,
        "objective_seconds": limit,
        "rates": part_rates(workload, profile, seeds, lines),
        "saturation": part_saturation(workload, profile, lines),
        "smallest": part_smallest(workload, profile, min(seeds, _SIZING_SEEDS), lines),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--profiles", default=",".join(PROFILES))
    parser.add_argument("--out", type=Path, help="write headline.txt and headline.json there")
    arguments = parser.parse_args()
    names = arguments.profiles.split(",")
    if unknown := set(names) - set(PROFILES):
        parser.error(f"--profiles: {', '.join(sorted(unknown))} (expected {', '.join(PROFILES)})")
    report: dict[str, Any] = {
        "label": LABEL, "seeds": arguments.seeds, "environment": environment()
    }  # fmt: skip
    started = time.perf_counter()
    lines = Lines()
    lines.add(LABEL)
    report["profiles"] = [run(name, arguments.seeds, lines) for name in names]
    print(f"({time.perf_counter() - started:.0f} s)")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "headline.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = json.dumps(report, indent=1) + "\n"
        (arguments.out / "headline.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
