"""A profile and a demand as a ratio problem in whole numbers.

What people write in decimals is taken at its word: 0.1 seconds are a tenth, not the double next to
it. Means over the mix of jobs are fractions of such decimals. Then all is multiplied by what makes
it whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, gcd, lcm

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import CostModel, Shape, WeightedShape
from disagfusion.scheduling.solver.ratio import Ratio

Replicas = Mapping[str, Mapping[str, int]]
"""Stage → pool → replicas."""


def decimal(value: float) -> Fraction:
    """Return the number that a float is written as."""
    return Fraction(repr(value))


@dataclass(frozen=True)
class Place:
    """A stage on a pool that every job of the mix fits.

    Attributes:
        stage: Its name.
        pool: Its name.
        seconds: Of a job, the mean over the mix.
        accelerators: Of a replica.
        cost: Of a replica in an hour.
    """

    stage: str
    pool: str
    seconds: Fraction
    accelerators: int
    cost: Fraction


class Instance:
    """What is to be planned.

    Args:
        profile: Accelerators and stages.
        demand: The jobs; one of the default shape where None.
        budget: Accelerators that may be used in all.
        current: The replicas that run; moves count where given.

    Raises:
        InvalidArgumentError: A demand is needed, the budget is negative, or what runs is not in
            the profile.
    """

    def __init__(
        self,
        profile: Profile,
        demand: Demand | None,
        budget: int | None,
        current: Replicas | None,
    ) -> None:
        if demand is None and (stage := _shaped(profile)):
            raise InvalidArgumentError(
                "--demand",
                f"what {stage} costs depends on the jobs",
                expected="a YAML file such as `shapes: [{height: 512, width: 512,"
                " num_inference_steps: 20}]`; `disagfusion schema demand` has every field",
            )
        if budget is not None and budget < 0:
            raise InvalidArgumentError("--budget", str(budget), expected="0 or more accelerators")
        self.profile = profile
        self.demand = demand or Demand()
        self.budget = budget
        self.current = current
        self.stages = list(profile.stages)
        self.pools = list(profile.pools)
        if current is not None:
            self._check(current)
        self.places = [
            self._place(stage, pool)
            for stage, description in profile.stages.items()
            for pool in description.pools
            if self.misfit(stage, pool) is None
        ]

    def _check(self, current: Replicas) -> None:
        for stage, pools in current.items():
            if stage not in self.profile.stages:
                known = ", ".join(self.stages)
                raise InvalidArgumentError("current", f"no such stage: {stage}", expected=known)
            for pool, replicas in pools.items():
                if pool not in self.profile.pools:
                    known = ", ".join(self.pools)
                    raise InvalidArgumentError("current", f"no such pool: {pool}", expected=known)
                if replicas < 0:
                    raise InvalidArgumentError(f"current: {stage}.{pool}", f"{replicas} replicas")

    def misfit(self, stage: str, pool: str) -> WeightedShape | None:
        """Return the largest job of the mix that does not fit; None where all do."""
        large = [one for one in self.demand.shapes if not self.profile.fits(stage, pool, one)]
        where = self.profile.stages[stage].pools[pool]
        return max(large, key=where.memory_of, default=None)

    def _place(self, stage: str, pool: str) -> Place:
        where = self.profile.stages[stage].pools[pool]
        cost = decimal(self.profile.pools[pool].cost_per_hour) * where.accelerators
        if where.seconds is not None:
            seconds = decimal(where.seconds)
        else:
            shapes = self.demand.shapes
            weights = [decimal(shape.weight) for shape in shapes]
            parts = [decimal(where.seconds_of(shape)) for shape in shapes]
            whole = sum((w * s for w, s in zip(weights, parts, strict=True)), Fraction())
            seconds = whole / sum(weights, Fraction())
        return Place(stage, pool, seconds, where.accelerators, cost)

    @cached_property
    def required(self) -> Fraction | None:
        """Jobs per second that are asked for, headroom included."""
        if self.demand.rate is None:
            return None
        return decimal(self.demand.rate) * (1 + decimal(self.demand.headroom))

    @cached_property
    def unit(self) -> Fraction:
        """Of the problem's flow: how much of it is one job per second."""
        whole = lcm(*(place.seconds.numerator for place in self.places))
        common = gcd(
            *(whole // place.seconds.numerator * place.seconds.denominator for place in self.places)
        )
        return Fraction(whole, common or 1)

    @cached_property
    def ratio(self) -> Ratio:
        """The problem."""
        places, profile = self.places, self.profile
        costs = [place.cost for place in places]
        scale = lcm(*(cost.denominator for cost in costs))
        common = gcd(*(int(cost * scale) for cost in costs)) or 1
        required = self.required
        running = self.current
        return Ratio(
            stages=tuple(self.stages.index(place.stage) for place in places),
            pools=tuple(self.pools.index(place.pool) for place in places),
            speeds=tuple(int(self.unit / place.seconds) for place in places),
            accelerators=tuple(place.accelerators for place in places),
            costs=tuple(int(cost * scale) // common for cost in costs),
            capacities=tuple(pool.accelerators for pool in profile.pools.values()),
            least=tuple(stage.min for stage in profile.stages.values()),
            most=tuple(stage.max for stage in profile.stages.values()),
            budget=self.budget,
            target=None if required is None else ceil(required * self.unit),
            current=None
            if running is None
            else tuple(running.get(place.stage, {}).get(place.pool, 0) for place in places),
        )

    def moves(self, replicas: Replicas) -> int:
        """Return how many replicas are started and stopped to get to a plan."""
        running = self.current
        if running is None:
            return 0
        pairs = {(stage, pool) for stage in self.stages for pool in self.pools}
        return sum(
            abs(replicas.get(stage, {}).get(pool, 0) - running.get(stage, {}).get(pool, 0))
            for stage, pool in pairs
        )


def _shaped(profile: Profile) -> str | None:
    """Return the first stage whose seconds or memory depend on the job."""
    for name, stage in profile.stages.items():
        for pool in stage.pools.values():
            costs = (pool.model, pool.memory_gib)
            if any(isinstance(cost, CostModel) and cost.varies for cost in costs):
                return name
    return None


def describe(shape: Shape) -> str:
    """Return a job's shape for people."""
    frames = f"×{shape.num_frames}" if shape.num_frames > 1 else ""
    return f"{shape.width}×{shape.height}{frames}"
