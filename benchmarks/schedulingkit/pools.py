"""What a rate of jobs costs on pools of different accelerators."""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from benchmarks.schedulingkit.runs import HEAD, Figures, load, row, run
from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.balancer.fleet import Room
from disagfusion.scheduling.balancer.steps import toward
from disagfusion.scheduling.decision import Balancer, Decision, Place, Reason
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.observation import Observation
from disagfusion.scheduling.plan import Plan
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import FEATURES, CostModel, WeightedShape
from disagfusion.simulation.policies.named import Ratio, set_up
from disagfusion.simulation.policies.static import Static
from disagfusion.simulation.result import Result
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.workload import Failure, Stream, Throttle, Workload


def price(profile: Profile, demand: Demand) -> float | None:
    """Return the least cost of an hour at which the rate is met; None if it cannot be."""
    found = _plan(profile, demand)
    return found.cost_per_hour if found is not None and found.meets_demand else None


def only(profile: Profile, pool: str) -> Profile:
    """Return a profile in which every stage runs on one pool; others have no accelerators."""
    pools = {
        name: where if name == pool else where.model_copy(update={"accelerators": 0})
        for name, where in profile.pools.items()
    }
    return profile.model_copy(update={"pools": pools})


def price_if_alike(profile: Profile, demand: Demand) -> float | None:
    """Return the cost where all pools that a stage fits are taken for equally fast and dear.

    Who plans so asks for more and more until what he gets is enough in fact.
    """
    same = alike(profile)
    assert demand.rate is not None, "a rate is what is priced"
    asked = demand.rate
    while asked < 100 * demand.rate:
        found = _plan(same, demand.model_copy(update={"rate": asked}))
        if found is None or not found.meets_demand:
            return None
        if _throughput(profile, found) >= demand.rate:
            return _cost(profile, found)
        asked *= 1.02
    return None


def _plan(profile: Profile, demand: Demand) -> Plan | None:
    try:
        return plan(profile, demand, compare=False)
    except FailedPreconditionError:
        return None


def alike(profile: Profile) -> Profile:
    """Return a profile in which all pools that a stage fits are equally fast and dear."""
    stages = {}
    for name, stage in profile.stages.items():
        costs = [
            pool.model or CostModel(constant=pool.seconds or 0.0) for pool in stage.pools.values()
        ]
        means = {
            feature: round(mean(cost.coefficients[i] for cost in costs), 3)
            for i, feature in enumerate(FEATURES)
        }
        same = {"seconds": None, "model": CostModel(**means)}
        pools = {pool: what.model_copy(update=same) for pool, what in stage.pools.items()}
        stages[name] = stage.model_copy(update={"pools": pools})
    cost = round(mean(pool.cost_per_hour for pool in profile.pools.values()), 3)
    pools_ = {
        name: pool.model_copy(update={"cost_per_hour": cost})
        for name, pool in profile.pools.items()
    }
    return profile.model_copy(update={"stages": stages, "pools": pools_})


def _throughput(profile: Profile, found: Plan) -> float:
    return min(
        sum(
            count / (profile.stages[stage].pools[pool].seconds or 1.0)
            for pool, count in found.replicas.get(stage, {}).items()
        )
        for stage in profile.stages
    )


def _cost(profile: Profile, found: Plan) -> float:
    return sum(
        group.replicas * group.parallel_degree * profile.pools[group.pool].cost_per_hour
        for group in found.groups
    )


# A mix that shifts, on pools whose stages differ in speed.

PHASES: tuple[Mapping[str, float], ...] = (
    {"four-step": 1.0},
    {"four-step": 1.0, "one-step": 2.0},
    {"one-step": 1.0},
)
"""Jobs per job of each shape, phase by phase."""
_SECONDS = 480.0


@dataclass(frozen=True, slots=True)
class Case:
    """Pools, jobs, and what goes wrong.

    Attributes:
        name: For people.
        workload: The jobs; begins with the exact plan for its first phase.
        profile: What stages cost.
        plans: The exact plan of each phase.
    """

    name: str
    workload: Workload
    profile: Profile
    plans: tuple[Ratio, ...]


def cases() -> Iterator[Case]:
    """Yield two pools and three, with all and with three quarters of their accelerators."""
    workload, profile = load("pools", "unequal-pools")
    pair = _sized(profile, {"small": 5, "medium": 3, "large": 0})
    yield _case("two pools", workload, pair)
    yield _case("three pools", workload, profile)
    yield _case("budget of 12", workload, profile, budget=12)
    failure = Failure(at=600.0, pool="medium", replicas=4, repair_seconds=400.0)
    yield _case("4 of medium fail", workload, profile, budget=12, failures=(failure,))
    throttle = Throttle(start=600.0, pool="small", speed=0.5)
    yield _case("small at half speed", workload, profile, throttles=(throttle,))


def _sized(profile: Profile, accelerators: Mapping[str, int]) -> Profile:
    pools = {
        name: where.model_copy(update={"accelerators": accelerators[name]})
        for name, where in profile.pools.items()
    }
    return profile.model_copy(update={"pools": pools})


def _case(
    name: str, workload: Workload, profile: Profile, budget: int | None = None, **update: Any
) -> Case:
    """Return a case in which each phase asks for 95 % of what its exact plan can do."""
    streams, plans = [], []
    for index, mix in enumerate(PHASES):
        shapes = tuple(
            WeightedShape(**workload.shapes[shape].model_dump(), weight=weight)
            for shape, weight in mix.items()
        )
        found = plan(profile, Demand(shapes=shapes), budget, compare=False)
        plans.append({stage: dict(pools) for stage, pools in found.replicas.items()})
        start = index * _SECONDS
        for shape, weight in mix.items():
            rate = 0.95 * found.throughput * weight / sum(mix.values())
            streams.append(
                Stream(shapes={shape: 1}, start=start, end=start + _SECONDS, rate=round(rate, 4))
            )
    what = {"arrivals": tuple(streams), "initial": plans[0], "budget": budget, "name": name}
    return Case(name, workload.model_copy(update=what | update), profile, tuple(plans))


class PerPhase:
    """Goes to the exact plan of each phase as soon as that begins: it knows when, and which.

    Args:
        case: Pools and plans.
    """

    name = "exact plan per phase"
    period = 10.0

    def __init__(self, case: Case) -> None:
        self._case = case

    def initial(self) -> None:
        """Return no state."""

    def decide(self, state: None, observation: Observation, now: float) -> tuple[None, Decision]:
        """Decide what should be done; see `Balancer`."""
        case = self._case
        ratio = case.plans[min(int(now / _SECONDS), len(case.plans) - 1)]
        wanted = {
            Place(stage, pool): count
            for stage, pools in ratio.items()
            for pool, count in pools.items()
        }
        total = sum(pool.accelerators for pool in case.profile.pools.values())
        room = Room(case.profile, case.workload.budget or total, observation, frozenset())
        moves = toward(room, case.profile, wanted)
        return None, Decision(now, moves, Reason.REBALANCE if moves else Reason.BALANCED)


def every_ratio(case: Case) -> Iterator[Ratio]:
    """Yield every way to use all accelerators of all pools, each stage with a replica at least."""
    profile = case.profile
    options = [
        _shares(pool, where.accelerators, list(profile.stages))
        for pool, where in profile.pools.items()
    ]
    for combined in itertools.product(*options):
        ratio: Ratio = {stage: {} for stage in profile.stages}
        for pool, counts in combined:
            for stage, count in counts.items():
                ratio[stage][pool] = count
        if all(sum(pools.values()) for pools in ratio.values()):
            yield ratio


def _shares(
    pool: str, accelerators: int, stages: Sequence[str]
) -> list[tuple[str, dict[str, int]]]:
    found = []
    for cuts in itertools.combinations_with_replacement(range(accelerators + 1), len(stages) - 1):
        edges = (0, *cuts, accelerators)
        counts = [b - a for a, b in itertools.pairwise(edges)]
        found.append((pool, dict(zip(stages, counts, strict=True))))
    return found


def contenders(case: Case) -> Iterator[tuple[str, Figures]]:
    """Yield the figures of rules that know less, or more, than the balancer."""
    for name, ratio in zip(("first", "second", "third"), case.plans, strict=True):
        yield f"plan of {name} phase", fixed(case, ratio)
    yield "exact plan per phase", Figures.of(_simulate(case, PerPhase(case), case.plans[0]))
    yield "hybrid, pools alike", Figures.of(_blind(case))
    yield "hybrid", Figures.of(run("hybrid", case.workload, case.profile))


def fixed(case: Case, ratio: Ratio) -> Figures:
    """Return the figures of a ratio that never changes."""
    return Figures.of(_simulate(case, Static(), ratio))


def _blind(case: Case) -> Result:
    """Let the balancer take all pools that a stage fits for equally fast, and learn nothing."""
    believed = alike(case.profile).model_copy(update={"pools": case.profile.pools})
    setup = set_up("hybrid", believed, case.workload, dict)
    return _simulate(case, setup.balancer, case.plans[0], believed)


def _simulate(
    case: Case, balancer: Balancer[Any], initial: Ratio, believed: Profile | None = None
) -> Result:
    return Simulation(
        case.workload,
        believed or case.profile,
        balancer,
        initial=initial,
        truth=case.profile,
        generator=lambda stream: random.Random(f"0/{stream}"),
    ).run()


def main() -> None:
    """Print a table for each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", help="names, by commas; all by default")
    parser.add_argument("--every", action="store_true", help="two pools: every fixed ratio")
    options = parser.parse_args()
    for case in cases():
        if options.cases and case.name not in options.cases.split(","):
            continue
        print(f"\n{case.name}\n{HEAD}")
        if options.every and case.name == "two pools":
            found = sorted((fixed(case, one) for one in every_ratio(case)), key=lambda one: one.p95)
            print(row(f"best P95 of {len(found)}", found[0]))
            print(row("earliest last", min(found, key=lambda one: one.last)))
            print(row("median P95", found[len(found) // 2]), flush=True)
        for name, figures in contenders(case):
            print(row(name, figures), flush=True)


if __name__ == "__main__":
    main()
