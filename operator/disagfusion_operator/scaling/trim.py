"""Fewer replicas where there are more than bounds allow."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from disagfusion.scheduling.decision import Place
from disagfusion_operator.scaling.capacity import PoolKey
from disagfusion_operator.scaling.table import Claim


def trimmed(
    claim: Claim,
    desired: Mapping[Place, int],
    shares: Mapping[PoolKey, int],
    targets: Mapping[Place, int],
    fixed: Collection[Place] = (),
) -> dict[Place, int]:
    """Return the replicas there should be within maxima, the budget and the shares of pools.

    Those go first that are farthest above their target; minima are kept as far as possible, and
    against what somebody else takes beyond the bounds in any case.

    Args:
        claim: Bounds of the pipeline.
        desired: By place.
        shares: Pool → accelerators; a pool that is missing has no bound.
        targets: What the shares are meant for.
        fixed: Places that somebody else scales: they stay as they are.
    """
    counts = {place: count for place, count in desired.items() if place not in fixed}
    taken = {place: count for place, count in desired.items() if place in fixed}
    for stage in claim.stages:
        most = claim.most.get(stage)
        mine = [place for place in counts if place.stage == stage]
        if most is not None:
            most -= sum(count for place, count in taken.items() if place.stage == stage)
        while most is not None and sum(counts[place] for place in mine) > max(0, most):
            counts[_first(claim, counts, targets, mine, keep_minima=False)] -= 1
    for pool, share in shares.items():
        mine = [place for place in counts if claim.seats[place].pool == pool]
        others = [place for place in taken if claim.seats[place].pool == pool]
        _shrink(claim, counts, targets, mine, share - _accelerators(claim, taken, others), taken)
    if claim.budget is not None:
        left = claim.budget - _accelerators(claim, taken, list(taken))
        _shrink(claim, counts, targets, list(counts), left, taken)
    return {place: counts.get(place, taken.get(place, 0)) for place in desired}


def with_minima(
    claim: Claim,
    desired: Mapping[Place, int],
    shares: Mapping[PoolKey, int],
    targets: Mapping[Place, int],
    fixed: Collection[Place] = (),
) -> dict[Place, int]:
    """Return the replicas there should be when stages below their minimum take room from others.

    Args:
        claim: Bounds of the pipeline.
        desired: By place.
        shares: Pool → accelerators.
        targets: What the shares are meant for.
        fixed: Places that somebody else scales: they stay as they are.
    """
    counts = dict(desired)
    for place, target in targets.items():
        seat = claim.seats.get(place)
        if seat is None or place in fixed:
            continue
        mine = [one for one in counts if one.stage == place.stage]
        while (
            counts[place] < target and sum(counts[one] for one in mine) < claim.least[place.stage]
        ):
            before = dict(counts)
            counts[place] += 1
            there = [one for one in counts if claim.seats[one].pool == seat.pool]
            bounds = [(there, shares.get(seat.pool, 0))]
            if claim.budget is not None:
                bounds.append((list(counts), claim.budget))
            for places, most in bounds:
                givers = [
                    one
                    for one in places
                    if one not in fixed
                    and sum(counts[other] for other in counts if other.stage == one.stage)
                    > claim.least[one.stage]
                ]
                while _accelerators(claim, counts, places) > most and any(
                    counts[one] for one in givers
                ):
                    counts[_first(claim, counts, targets, givers, keep_minima=True)] -= 1
                if _accelerators(claim, counts, places) > most:
                    counts = before
                    break
            if counts == before:
                break
    return counts


def _accelerators(claim: Claim, counts: Mapping[Place, int], places: list[Place]) -> int:
    return sum(counts[place] * claim.seats[place].accelerators for place in places)


def _shrink(
    claim: Claim,
    counts: dict[Place, int],
    targets: Mapping[Place, int],
    places: list[Place],
    most: int,
    taken: Mapping[Place, int],
) -> None:
    while _accelerators(claim, counts, places) > max(0, most):
        first = _first(claim, counts, targets, places, keep_minima=True)
        stage = sum(n for one, n in (*counts.items(), *taken.items()) if one.stage == first.stage)
        if taken and stage <= claim.least[first.stage]:
            return
        counts[first] -= 1


def _first(
    claim: Claim,
    counts: Mapping[Place, int],
    targets: Mapping[Place, int],
    places: list[Place],
    *,
    keep_minima: bool,
) -> Place:
    """Return the place that gives one away first."""

    def order(place: Place) -> tuple[bool, int, str, str]:
        total = sum(count for one, count in counts.items() if one.stage == place.stage)
        needed = keep_minima and total <= claim.least[place.stage]
        return (needed, targets.get(place, 0) - counts[place], place.stage, place.pool)

    return min((place for place in places if counts[place]), key=order)
