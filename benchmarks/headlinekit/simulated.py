"""The systems of the simulated headline, and what is read off their simulations."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.schedulingkit.runs import first_plan
from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import WeightedShape
from disagfusion.simulation.policies.named import Ratio, set_up
from disagfusion.simulation.result import Result, percentile
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.workload import Stream, Workload

BUDGET = 8
ATTAINED = 0.95
"""Share of jobs within their objective that a fleet has to reach to count as enough."""

_SATURATION_JOBS = 240
_GROWTH = 0.05
_HEADROOMS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


@dataclass(frozen=True)
class System:
    """A way to serve a profile's pipeline.

    Attributes:
        name: For people.
        policy: Of the simulation.
        profile: Only of the pools that it runs on.
        accelerators: Pool → how many it has.
        initial: Stage → pool → replicas at the start; the policy's own where not given.
    """

    name: str
    policy: str
    profile: Profile
    accelerators: dict[str, int]
    initial: Ratio | None = None

    @property
    def cost_per_hour(self) -> float:
        """Price of the whole fleet, idle or not."""
        pools = self.profile.pools
        return sum(count * pools[pool].cost_per_hour for pool, count in self.accelerators.items())


@dataclass(frozen=True)
class Figures:
    """A system under a load; seconds where nothing else is said.

    Attributes:
        throughput: Jobs a second, from the first arrival to the last job's end; mean of the seeds.
        p50: Median latency of the jobs of all seeds.
        p95: 95th percentile of it.
        attainment: Share of jobs within their objective.
        cost: Of 1,000 jobs, the fleet being paid until the last job has ended.
    """

    throughput: float
    p50: float
    p95: float
    attainment: float
    cost: float


def restrict(profile: Profile, pool: str) -> Profile:
    """Return the profile as if there were no other pool.

    Raises:
        KeyError: A stage cannot run there.
    """
    return Profile(
        name=profile.name,
        source=profile.source,
        overhead_seconds=profile.overhead_seconds,
        pools={pool: profile.pools[pool]},
        stages={
            name: stage.model_copy(update={"pools": {pool: stage.pools[pool]}})
            for name, stage in profile.stages.items()
        },
        monoliths={
            name: monolith for name, monolith in profile.monoliths.items() if monolith.pool == pool
        },
    )


def split_pool(profile: Profile) -> str:
    """Return the pool of the stages: where the unsplit pipeline has to offload its weights."""
    return profile.monoliths["offloading"].pool


def planned(profile: Profile, workload: Workload, accelerators: int) -> str:
    """Return the policy of the exact plan's ratio for so many accelerators."""
    bounded = workload.model_copy(update={"budget": accelerators})
    ratio = first_plan(bounded, profile)
    return "static:" + ":".join(str(sum(ratio[stage].values())) for stage in profile.stages)


def split(profile: Profile, workload: Workload, accelerators: int = BUDGET) -> System:
    """Return the stages in the plan's fixed ratio."""
    small = restrict(profile, split_pool(profile))
    policy = planned(small, workload, accelerators)
    name = "split, fixed " + policy.partition(":")[2]
    return System(name, policy, small, {split_pool(profile): accelerators})


def balanced(profile: Profile) -> System:
    """Return the stages in the balancer's hands, the plan's ratio to begin with."""
    pool = split_pool(profile)
    return System("split, balanced", "hybrid", restrict(profile, pool), {pool: BUDGET})


def monolith(profile: Profile, name: str, replicas: int = BUDGET) -> System:
    """Return unsplit pipelines of one of the profile's kinds."""
    pool = profile.monoliths[name].pool
    policy = f"monolith:{name}:{replicas}"
    return System(f"{replicas} {name}, {pool}", policy, restrict(profile, pool), {pool: replicas})


def mixed(profile: Profile, workload: Workload, rate: float) -> list[System]:
    """Return the stages on both kinds of accelerators, in the planner's least dear fleets.

    Each has more headroom above the rate than the one before.
    """
    shape = WeightedShape(**workload.shapes[_shape(workload)].model_dump(), weight=1)
    found: list[System] = []
    for headroom in _HEADROOMS:
        try:
            chosen = plan(
                profile, Demand(shapes=(shape,), rate=rate, headroom=headroom), compare=False
            )
        except FailedPreconditionError:
            break
        if not chosen.meets_demand or any(len(group.stages) > 1 for group in chosen.groups):
            break
        ratio = {stage: dict(pools) for stage, pools in chosen.replicas.items()}
        if not found or found[-1].initial != ratio:
            counts = Counter[str]()
            for pools in ratio.values():
                counts.update(pools)
            found.append(System("mixed", "static", profile, dict(counts), ratio))
    return found


def systems(profile: Profile, workload: Workload) -> list[System]:
    """Return all that are compared, of eight accelerators each."""
    return [
        balanced(profile),
        split(profile, workload),
        *(monolith(profile, name) for name in profile.monoliths),
    ]


def objective(profile: Profile, workload: Workload) -> float:
    """Return W3's objective for another pipeline: 1.5 times the stages' seconds where split."""
    shape = workload.shapes[_shape(workload)]
    pool = split_pool(profile)
    return 1.5 * sum(stage.pools[pool].seconds_of(shape) for stage in profile.stages.values())


def simulate(system: System, workload: Workload, seed: int) -> Result:
    """Run the workload; the same seed draws the same jobs for every system."""
    bounded = workload.model_copy(
        update={"budget": sum(system.accelerators.values()), "initial": system.initial}
    )
    profile = system.profile
    setup = set_up(system.policy, profile, bounded, lambda: first_plan(bounded, profile))
    return Simulation(
        bounded,
        setup.profile,
        setup.balancer,
        initial=setup.initial,
        learn=setup.learn,
        generator=lambda stream: random.Random(f"{seed}/{stream}"),
    ).run()


def figures(system: System, workload: Workload, seeds: int) -> Figures:
    """Run the workload with each seed."""
    results = [simulate(system, workload, seed) for seed in range(seeds)]
    latencies = sorted(latency for result in results for latency in result.latencies)
    seconds = [result.last_finish_seconds for result in results]
    jobs = [result.completed for result in results]
    return Figures(
        throughput=math.fsum(n / s for n, s in zip(jobs, seconds, strict=True)) / seeds,
        p50=percentile(latencies, 0.5),
        p95=percentile(latencies, 0.95),
        attainment=math.fsum(result.attainment or 0.0 for result in results) / seeds,
        cost=1000 * system.cost_per_hour * math.fsum(seconds) / 3600 / sum(jobs),
    )


def saturation(system: System, workload: Workload, precision: float = 0.001) -> float:
    """Return the highest rate at which the queue does not grow, jobs a second, by bisection.

    Jobs come at equal distances. The queue grows if the last quarter of them takes longer than the
    second quarter does, by more than a twentieth.

    Args:
        system: What is to do them.
        workload: Says which jobs.
        precision: Share of the rate by which it may be too low.
    """
    low, high = 0.0, 0.125
    while not _grows(system, workload, high):
        low, high = high, 2 * high
    while high - low > precision * high:
        middle = (low + high) / 2
        if _grows(system, workload, middle):
            high = middle
        else:
            low = middle
    return low


def _grows(system: System, workload: Workload, rate: float) -> bool:
    stream = Stream(shapes={_shape(workload): 1}, rate=rate, count=_SATURATION_JOBS)
    measure = workload.measure.model_copy(update={"skip_jobs": 0})
    steady = workload.model_copy(update={"arrivals": (stream,), "measure": measure})
    latencies = simulate(system, steady, 0).latencies
    quarter = len(latencies) // 4
    early = math.fsum(latencies[quarter : 2 * quarter]) / quarter
    late = math.fsum(latencies[-quarter:]) / quarter
    return late > (1 + _GROWTH) * early


def _shape(workload: Workload) -> str:
    (name,) = workload.shapes
    return name


def smallest(candidates: Sequence[System], workload: Workload, seeds: int) -> System | None:
    """Return the first system, the smaller ones coming first, that attains what it has to."""
    for system in candidates:
        if figures(system, workload, seeds).attainment >= ATTAINED:
            return system
    return None
