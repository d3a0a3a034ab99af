"""Simulations by name, and what is read off them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import WeightedShape
from disagfusion.simulation.policies.named import Ratio, set_up
from disagfusion.simulation.result import Result
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.workload import Workload

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared: seconds until the last job ends, latency, moves."""

    last: float
    p50: float
    p95: float
    mean: float
    moves: int
    cost: float
    lost: int
    exceeded: int

    @classmethod
    def of(cls, result: Result) -> Figures:
        """Read them off a result."""
        latency = result.latency_seconds
        return cls(
            result.last_finish_seconds, latency["p50"], latency["p95"], latency["mean"],
            result.moves, result.cost, result.lost, result.budget_exceeded,
        )  # fmt: skip


def load(workload: str, profile: str) -> tuple[Workload, Profile]:
    """Read two of the examples."""
    one = EXAMPLES / "workloads" / f"{workload}.yaml"
    other = EXAMPLES / "profiles" / f"{profile}.yaml"
    return (
        parse(Workload, one.read_text(), name=one.name),
        parse(Profile, other.read_text(), name=other.name),
    )


def run(
    policy: str,
    workload: Workload,
    profile: Profile,
    seed: object = 0,
    settings: BalancerSettings | None = None,
    truth: Profile | None = None,
) -> Result:
    """Simulate a policy by its name; the same seed draws the same jobs for every policy."""
    setup = set_up(policy, profile, workload, lambda: first_plan(workload, profile), settings)
    return Simulation(
        workload,
        setup.profile,
        setup.balancer,
        initial=setup.initial,
        truth=truth,
        learn=setup.learn,
        generator=lambda stream: random.Random(f"{seed}/{stream}"),
    ).run()


def first_plan(workload: Workload, profile: Profile) -> Ratio:
    """Return the exact plan for the mix of a workload's first stream."""
    shapes = tuple(
        WeightedShape(**workload.shapes[name].model_dump(), weight=weight)
        for name, weight in workload.arrivals[0].shapes.items()
    )
    found = plan(profile, Demand(shapes=shapes), workload.budget, compare=False)
    return {stage: dict(pools) for stage, pools in found.replicas.items()}


def static_ratios(stages: int, replicas: int) -> Iterator[str]:
    """Yield every fixed ratio, by its policy's name."""

    def parts(left: int, count: int) -> Iterator[tuple[int, ...]]:
        if count == 1:
            yield (left,)
            return
        for first in range(1, left - count + 2):
            for rest in parts(left - first, count - 1):
                yield (first, *rest)

    for ratio in parts(replicas, stages):
        yield "static:" + ":".join(map(str, ratio))


def row(name: str, one: Figures) -> str:
    """Return a line of a table."""
    return (
        f"{name:22} {one.last:8.0f} {one.p50:7.0f} {one.p95:7.0f} {one.mean:7.0f}"
        f" {one.moves:6d} {one.cost:8.2f} {one.lost:5d} {one.exceeded:5d}"
    )


HEAD = (
    f"{'policy':22} {'last s':>8} {'P50 s':>7} {'P95 s':>7} {'mean s':>7}"
    f" {'moves':>6} {'cost':>8} {'lost':>5} {'over':>5}"
)


def paired(ours: list[Figures], theirs: list[Figures]) -> dict[str, float]:
    """Return medians of the ratios of two policies' figures, seed by seed."""
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "last": median(one.last / other.last for one, other in pairs),
        "p95": median(one.p95 / other.p95 for one, other in pairs),
        "mean": median(one.mean / other.mean for one, other in pairs),
    }
