"""How long exact plans take, and how many of them are proven.

    python benchmarks/planner.py [--plans 20] [--stages 3] [--pools 8] [--accelerators 10000]
        [--json]

Random profiles (tests/unit/scheduling/planningkit/large.py) of three kinds: any seconds with two
decimals; pools that differ by one factor for all stages, rounded to two decimals, so that many
plans are nearly equal; and the same not rounded, so that very many are nearly equal and the best is
decided behind the tenth digit. Each with and without a budget, prices, and bounds of the stages.

Gives the processor time of the plan, of the plan with its runner-up, and the share that is proven.
Then the same for fleets so small that a simulator plans them thousands of times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from disagfusion.scheduling.plan import Plan
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "unit" / "scheduling"))
large: Any = import_module("planningkit.large")

SMALL_REPEATS = 100


@dataclass(frozen=True)
class Measured:
    """Of one kind of problem; times in milliseconds of processor time.

    Attributes:
        kind: What it is.
        plans: How many were made.
        proven: Of them.
        p50: Median of a plan without a runner-up.
        p95: 95th percentile.
        longest: Of all.
        compared_p50: Median of a plan with a runner-up.
        compared_p95: 95th percentile.
    """

    kind: str
    plans: int
    proven: int
    p50: float
    p95: float
    longest: float
    compared_p50: float
    compared_p95: float


def timed(make: Callable[[], Plan]) -> tuple[float, Plan]:
    begun = time.process_time()
    found = make()
    return (time.process_time() - begun) * 1e3, found


def measure(kind: str, problems: Sequence[tuple[Profile, int | None]]) -> Measured:
    alone, compared, proven = [], [], 0
    for profile, budget in problems:
        milliseconds, found = timed(lambda: plan(profile, budget=budget, compare=False))  # noqa: B023
        alone.append(milliseconds)
        proven += found.proven
        compared.append(timed(lambda: plan(profile, budget=budget))[0])  # noqa: B023
    return Measured(
        kind,
        len(problems),
        proven,
        statistics.median(alone),
        percentile(alone, 0.95),
        max(alone),
        statistics.median(compared),
        percentile(compared, 0.95),
    )


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def large_problems(arguments: argparse.Namespace) -> list[Measured]:
    found = []
    for kind, budgeted, costs, bounds in product(
        large.KINDS, (False, True), (False, True), (False, True)
    ):
        problems = []
        for seed in range(arguments.plans):
            random = Random(seed)
            profile = large.large_profile(
                random,
                kind,
                stages=arguments.stages,
                pools=arguments.pools,
                accelerators=arguments.accelerators,
                costs=costs,
                bounds=bounds,
            )
            budget = random.randint(arguments.accelerators // 4, arguments.accelerators)
            problems.append((profile, budget if budgeted else None))
        words = [kind, *["budget"] * budgeted, *["prices"] * costs, *["bounds"] * bounds]
        found.append(measure(", ".join(words), problems))
    return found


def small_problems() -> list[Measured]:
    found = []
    for stages, pools, accelerators in ((3, 1, 8), (2, 1, 800), (3, 2, 16), (3, 3, 64)):
        profiles = [
            large.large_profile(
                Random(seed), "any", stages=stages, pools=pools, accelerators=accelerators
            )
            for seed in range(SMALL_REPEATS)
        ]
        kind = f"{stages} stages, {pools} pool{'s' if pools > 1 else ''}, {accelerators}"
        problems = [(profile, None) for profile in profiles if plannable(profile)]
        found.append(measure(kind, problems))
    return found


def plannable(profile: Profile) -> bool:
    """Whether every stage can have a replica."""
    return sum(pool.accelerators for pool in profile.pools.values()) >= len(profile.stages)


def show(title: str, rows: list[Measured]) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("problem")
    for name in ("plans", "proven", "p50 ms", "p95 ms", "max ms", "+ runner-up p50", "p95"):
        table.add_column(name, justify="right")
    for row in rows:
        numbers = (row.p50, row.p95, row.longest, row.compared_p50, row.compared_p95)
        share = f"{row.proven / row.plans:.0%}"
        table.add_row(row.kind, str(row.plans), share, *(f"{number:.1f}" for number in numbers))
    Console(width=120).print(table)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plans", type=int, default=20, help="of each kind")
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--pools", type=int, default=8)
    parser.add_argument("--accelerators", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    plan(large.large_profile(Random(0), "any"))  # Imports and first uses are not counted.
    big, small = large_problems(arguments), small_problems()
    if arguments.json:
        print(json.dumps([asdict(row) for row in (*big, *small)], indent=2))
        return
    show(
        f"{arguments.stages} stages, {arguments.pools} pools,"
        f" {arguments.accelerators:,} accelerators",
        big,
    )
    print()
    show("Small fleets", small)


if __name__ == "__main__":
    main()
