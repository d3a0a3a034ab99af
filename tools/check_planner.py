"""Compare the planner with trying everything, on random problems.

    python tools/check_planner.py [--cases 10000] [--seed 0]

Each problem has up to three pools and four stages, with ties, budgets, bounds, replicas of several
accelerators, memory that does not suffice, costs, rates, and replicas that run already. Compared
are throughput, cost, accelerators and moves of the plan, throughput and cost of the runner-up, and
whether there is a plan at all. What tries everything shares no code with the planner
(tests/unit/scheduling/planningkit). 10,000 problems take some four minutes.

Exits with 1 on the first difference, and prints the problem as files from which it can be planned
again.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path
from random import Random

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.planner import plan

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "unit" / "scheduling"))
brute = import_module("planningkit.brute")
cases = import_module("planningkit.cases")

_REPORT_EVERY = 1000


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    planned = unplannable = 0
    planning = 0.0
    for number in range(arguments.cases):
        case = cases.random_case(Random(f"{arguments.seed}/{number}"))
        profile, demand = case.parsed()
        begun = time.perf_counter()
        try:
            found = plan(profile, demand, case.budget, case.current)
        except FailedPreconditionError:
            found = None
        planning += time.perf_counter() - begun
        planned += found is not None
        unplannable += found is None
        problem = brute.difference(case, found)
        if problem is not None:
            print(f"--seed {arguments.seed}, case {number}: {problem}\n{case}")
            sys.exit(1)
        if (number + 1) % _REPORT_EVERY == 0:
            print(f"{number + 1:,} cases, no difference", flush=True)
    print(
        f"{planned:,} planned, {unplannable:,} without a plan, no difference;"
        f" {1e3 * planning / max(arguments.cases, 1):.1f} ms a plan"
    )


if __name__ == "__main__":
    main()
