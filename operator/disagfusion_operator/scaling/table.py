"""What pipelines claim of pools, and a table of what is given to whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from disagfusion.scheduling.decision import Place
from disagfusion_operator.scaling.capacity import PoolKey
from disagfusion_operator.scaling.view import Key

_STAYS = 1.1
"""A place where a replica runs is preferred by so much: moving it costs time."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where replicas of a stage can be.

    Attributes:
        pool: Of the cluster.
        accelerators: That one takes.
        speed: Jobs per second of one.
        cost: Of one in an hour.
    """

    pool: PoolKey
    accelerators: int
    speed: float
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What a pipeline needs of pools.

    Attributes:
        key: Which pipeline.
        priority: The higher one is served first.
        seats: By place.
        least: Stage → replicas.
        most: Stage → replicas; None: no bound.
        need: Stage → jobs per second that it has to do; a stage that is missing needs nothing.
        held: Place → replicas that there should be now.
        budget: Accelerators in all; None: no bound.
        limits: Pool → accelerators that it may take at most.
        expands: Whether it uses more than it needs.
        stages: Names of the stages.
        pools: Pools where it may be.
    """

    key: Key
    priority: int
    seats: Mapping[Place, Seat]
    least: Mapping[str, int]
    most: Mapping[str, int | None]
    need: Mapping[str, float] = field(default_factory=dict)
    held: Mapping[Place, int] = field(default_factory=dict)
    budget: int | None = None
    limits: Mapping[PoolKey, int] = field(default_factory=dict)
    expands: bool = False

    stages: tuple[str, ...] = field(init=False, compare=False)
    pools: frozenset[PoolKey] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Work out what is asked for again and again."""
        object.__setattr__(self, "stages", tuple(self.least))
        object.__setattr__(self, "pools", frozenset(one.pool for one in self.seats.values()))


def served(claim: Claim, counts: Mapping[Place, int]) -> float:
    """Return which part of what it needs a pipeline can do; infinite where it needs nothing.

    Args:
        claim: What it needs.
        counts: Replicas by place.
    """
    return min((part_served(claim, counts, stage) for stage in claim.stages), default=math.inf)


def part_served(claim: Claim, counts: Mapping[Place, int], stage: str) -> float:
    """Return the same of one stage."""
    need = claim.need.get(stage, 0.0)
    if need <= 0.0:
        return math.inf
    speed = math.fsum(
        count * claim.seats[place].speed for place, count in counts.items() if place.stage == stage
    )
    return speed / need


def taken_by(claim: Claim, counts: Mapping[Place, int]) -> dict[PoolKey, int]:
    """Return the accelerators that replicas take, by pool."""
    taken = dict.fromkeys(claim.pools, 0)
    for place, count in counts.items():
        seat = claim.seats[place]
        taken[seat.pool] += count * seat.accelerators
    return taken


def count_of(counts: Mapping[Place, int], stage: str) -> int:
    """Return the replicas of a stage."""
    return sum(count for place, count in counts.items() if place.stage == stage)


class Table:
    """What is given to whom so far, and what is left.

    Args:
        claims: Of the pipelines that are looked at.
        capacity: Accelerators of each pool.

    Attributes:
        free: Pool → accelerators that are left.
        counts: Pipeline → place → replicas that are given.
    """

    def __init__(self, claims: Sequence[Claim], capacity: Mapping[PoolKey, int]) -> None:
        self.free = dict(capacity)
        self.counts: dict[Key, dict[Place, int]] = {
            claim.key: dict.fromkeys(claim.seats, 0) for claim in claims
        }
        self._taken: dict[Key, dict[PoolKey, int]] = {
            claim.key: dict.fromkeys(claim.pools, 0) for claim in claims
        }
        self._quality = _qualities(claims)

    def room(self, claim: Claim, place: Place, *, bounded: bool = True) -> bool:
        """Whether one more replica can be given."""
        seat = claim.seats[place]
        taken = self._taken[claim.key]
        if self.free.get(seat.pool, 0) < seat.accelerators:
            return False
        if taken[seat.pool] + seat.accelerators > claim.limits.get(seat.pool, math.inf):
            return False
        if claim.budget is not None and sum(taken.values()) + seat.accelerators > claim.budget:
            return False
        most = claim.most.get(place.stage)
        return not bounded or most is None or self.count(claim, place.stage) < most

    def count(self, claim: Claim, stage: str) -> int:
        """Return the replicas of a stage that are given."""
        return count_of(self.counts[claim.key], stage)

    def give(self, claim: Claim, place: Place, count: int = 1) -> None:
        """Give some replicas; a negative number takes them back."""
        seat = claim.seats[place]
        self.counts[claim.key][place] += count
        self._taken[claim.key][seat.pool] += count * seat.accelerators
        self.free[seat.pool] -= count * seat.accelerators

    def best(self, claim: Claim, stage: str) -> Place | None:
        """Return where one more replica of a stage does best; None: nowhere."""
        places = self._places(claim, stage)
        return min(places, key=lambda place: self._order(claim, place), default=None)

    def humblest(self, claim: Claim, stage: str) -> Place | None:
        """Return where one more takes least from others, where it runs if it can; None: nowhere.

        Nobody leaves accelerators to others for such as cost more, where cost is the objective.
        """

        def order(place: Place) -> tuple[float, float, bool, float, str]:
            seat = claim.seats[place]
            worth = self._quality[seat.pool] * seat.accelerators
            moves = self.counts[claim.key][place] >= claim.held.get(place, 0)
            return (_cost(claim, seat), worth, moves, -seat.speed, place.pool)

        return min(self._places(claim, stage), key=order, default=None)

    def _places(self, claim: Claim, stage: str) -> list[Place]:
        return [one for one in claim.seats if one.stage == stage and self.room(claim, one)]

    def _order(self, claim: Claim, place: Place) -> tuple[float, float, float, str]:
        """Best first: where a job is cheap, or the stage fast for what the pool does for others."""
        seat = claim.seats[place]
        each = seat.speed / seat.accelerators
        quality = each / self._quality[seat.pool]
        if self.counts[claim.key][place] < claim.held.get(place, 0):
            quality *= _STAYS
        return (_cost(claim, seat), -quality, -each, place.pool)


def _cost(claim: Claim, seat: Seat) -> float:
    """Return what a job costs there, as far as that is a pipeline's objective."""
    return 0.0 if claim.expands else seat.cost / seat.speed


def _qualities(claims: Sequence[Claim]) -> dict[PoolKey, float]:
    """Return what pools are worth: the mean speed that stages have there, over their best."""
    logs: dict[PoolKey, list[float]] = {}
    for claim in claims:
        for stage in claim.stages:
            each = {
                seat.pool: seat.speed / seat.accelerators
                for place, seat in claim.seats.items()
                if place.stage == stage
            }
            best = max(each.values(), default=0.0)
            for pool, speed in each.items():
                logs.setdefault(pool, []).append(math.log(speed / best) if speed > 0.0 else 0.0)
    return {pool: math.exp(math.fsum(found) / len(found)) for pool, found in logs.items()}
