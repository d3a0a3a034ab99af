"""Pools that several pipelines share, divided: by priority, then minima, then what they need.

Replicas are given away one by one. Of each priority, the higher ones first, every pipeline gets
its minima; then the one that is served worst gets a replica of the stage that holds it back, until
each can keep up with its jobs or nothing is left. What is left then keeps what runs, and goes to
pipelines that can use it. A division stays until another one serves somebody clearly better.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from disagfusion.scheduling.decision import Place
from disagfusion_operator.scaling.capacity import PoolKey
from disagfusion_operator.scaling.table import (
    Claim,
    Table,
    count_of,
    part_served,
    served,
    taken_by,
)
from disagfusion_operator.scaling.view import Key

CLEAR_GAIN = 0.2
"""Share by which somebody must be served better before a division changes."""
SLIGHT_LOSS = 0.02
"""The same by which others may be served worse then."""
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Division:
    """Who may have how much.

    Attributes:
        shares: Pipeline → pool → accelerators; never more than a pool has.
        targets: Pipeline → place → replicas that these are meant for.
    """

    shares: Mapping[Key, Mapping[PoolKey, int]]
    targets: Mapping[Key, Mapping[Place, int]]


def divide(
    claims: Iterable[Claim], capacity: Mapping[PoolKey, int], before: Division | None = None
) -> Division:
    """Divide pools.

    Args:
        claims: Of all pipelines; one for each.
        capacity: Accelerators of each pool; one that is missing has none.
        before: The division so far, which stays unless another is clearly better.
    """
    ordered = sorted(claims, key=lambda claim: (-claim.priority, claim.key))
    found = _best(ordered, capacity)
    modest = _best(ordered, capacity, modest=True)
    if _clearly_better(ordered, modest, found):
        found = modest
    if before is None or not _keeps(ordered, capacity, before):
        return found
    kept = _retarget(ordered, before)
    return found if _clearly_better(ordered, found, kept) else kept


def _best(
    ordered: Sequence[Claim], capacity: Mapping[PoolKey, int], *, modest: bool = False
) -> Division:
    """Divide anew.

    Args:
        ordered: Of all pipelines.
        capacity: Of the pools.
        modest: Minima take the accelerators that do least for the others, instead of those that
            they have: somebody who does little may sit on the best.
    """
    table = Table(ordered, capacity)
    for level in _levels(ordered):
        for claim in level:
            if modest:
                _give_modest_minima(table, claim)
            _give_minima(table, claim, level)
        _raise(table, level, until=1.0)
    for claim in ordered:
        _keep(table, claim)
    for level in _levels(ordered):
        _raise(table, [claim for claim in level if claim.expands], until=math.inf)
    return Division(_shares(table, ordered, capacity), table.counts)


def _levels(ordered: Sequence[Claim]) -> Iterator[list[Claim]]:
    for priority in dict.fromkeys(claim.priority for claim in ordered):
        yield [claim for claim in ordered if claim.priority == priority]


def _give_minima(table: Table, claim: Claim, level: Sequence[Claim]) -> None:
    for stage in claim.stages:
        held = [place for place in claim.seats if place.stage == stage and claim.held.get(place)]
        for place in held:
            while (
                table.count(claim, stage) < claim.least[stage]
                and table.counts[claim.key][place] < claim.held[place]
                and table.room(claim, place)
            ):
                table.give(claim, place)
    for stage in claim.stages:
        while table.count(claim, stage) < claim.least[stage]:
            found = table.best(claim, stage) or _made_room(table, claim, stage, level)
            if found is None:
                break
            table.give(claim, found)


def _give_modest_minima(table: Table, claim: Claim) -> None:
    for stage in claim.stages:
        while table.count(claim, stage) < claim.least[stage]:
            place = table.humblest(claim, stage)
            if place is None:
                break
            table.give(claim, place)


def _made_room(table: Table, claim: Claim, stage: str, level: Sequence[Claim]) -> Place | None:
    """Return a place that became free since another minimum of the level went elsewhere."""
    for place in (one for one in claim.seats if one.stage == stage):
        pool = claim.seats[place].pool
        for other in level:
            for taken in [one for one, seat in other.seats.items() if seat.pool == pool]:
                if not table.counts[other.key][taken]:
                    continue
                table.give(other, taken, -1)
                elsewhere = next(
                    (
                        one
                        for one in other.seats
                        if one.stage == taken.stage
                        and other.seats[one].pool != pool
                        and table.room(other, one)
                    ),
                    None,
                )
                if elsewhere is not None:
                    table.give(other, elsewhere)
                    if table.room(claim, place):
                        return place
                    table.give(other, elsewhere, -1)
                table.give(other, taken)
    return None


def _raise(table: Table, claims: Sequence[Claim], *, until: float) -> None:
    """Give to whoever is served worst, until all are served or nothing can be given."""
    heap = [(served(claim, table.counts[claim.key]), index) for index, claim in enumerate(claims)]
    heapq.heapify(heap)
    while heap:
        part, index = heapq.heappop(heap)
        if part >= until or math.isinf(part):
            return
        claim = claims[index]
        counts = table.counts[claim.key]
        stage = min(claim.stages, key=lambda name: part_served(claim, counts, name))
        place = table.best(claim, stage)
        if place is None:
            continue  # the other stages would not serve it better
        table.give(claim, place)
        heapq.heappush(heap, (served(claim, counts), index))


def _keep(table: Table, claim: Claim) -> None:
    """Leave what runs, where nobody needs it more."""
    for place, count in claim.held.items():
        while (
            place in claim.seats
            and table.counts[claim.key][place] < count
            and table.room(claim, place)
        ):
            table.give(claim, place)


def _shares(
    table: Table, ordered: Sequence[Claim], capacity: Mapping[PoolKey, int]
) -> dict[Key, dict[PoolKey, int]]:
    """Return what is given by pool, and what is left in equal parts."""
    shares = {claim.key: taken_by(claim, table.counts[claim.key]) for claim in ordered}
    for pool in capacity:
        left = table.free[pool]
        users = [claim for claim in ordered if pool in claim.pools]
        while left > 0 and users:
            part = max(1, left // len(users))
            for claim in list(users):
                mine = shares[claim.key]
                limit = claim.limits.get(pool, math.inf)
                if claim.budget is not None:
                    limit = min(limit, claim.budget)
                more = int(min(part, left, max(0, limit - mine[pool])))
                mine[pool] += more
                left -= more
                if more < part:
                    users.remove(claim)
                if not left:
                    break
    return shares


def _keeps(ordered: Sequence[Claim], capacity: Mapping[PoolKey, int], before: Division) -> bool:
    """Whether a division still fits: the same pipelines and pools, and no pool is overcommitted."""
    if {claim.key for claim in ordered} != set(before.shares):
        return False
    total: dict[PoolKey, int] = {}
    for claim in ordered:
        shares = before.shares[claim.key]
        if set(shares) != claim.pools:
            return False
        for pool, share in shares.items():
            if share > claim.limits.get(pool, math.inf):
                return False
            total[pool] = total.get(pool, 0) + share
    # What has been added is to be divided, too.
    return all(total.get(pool, 0) == count for pool, count in capacity.items() if pool in total)


def _retarget(ordered: Sequence[Claim], before: Division) -> Division:
    """Return the same shares with the best use of them: as it was, or as it would be now."""
    targets: dict[Key, Mapping[Place, int]] = {}
    for claim in ordered:
        known = {place: before.targets[claim.key].get(place, 0) for place in claim.seats}
        alone = _best_alone(claim, before.shares[claim.key])
        targets[claim.key] = known
        if not _within(claim, known) or _worth(claim, alone) > _worth(claim, known):
            targets[claim.key] = alone
    return Division(before.shares, targets)


def _within(claim: Claim, counts: Mapping[Place, int]) -> bool:
    """Whether replicas keep the bounds of a pipeline."""
    taken = taken_by(claim, counts)
    if claim.budget is not None and sum(taken.values()) > claim.budget:
        return False
    return all(
        most is None or count_of(counts, stage) <= most for stage, most in claim.most.items()
    )


def _worth(claim: Claim, counts: Mapping[Place, int]) -> tuple[int, float]:
    return -_missing(claim, counts), min(1.0, served(claim, counts))


def _best_alone(claim: Claim, shares: Mapping[PoolKey, int]) -> Mapping[Place, int]:
    table = Table([claim], shares)
    _give_minima(table, claim, [claim])
    _raise(table, [claim], until=1.0)
    _keep(table, claim)
    if claim.expands:
        _raise(table, [claim], until=math.inf)
    return table.counts[claim.key]


def _clearly_better(ordered: Sequence[Claim], found: Division, kept: Division) -> bool:
    """Whether, of the highest priority that differs clearly, the worst served is better off.

    Those that have a higher priority or are served worse than that may lose next to nothing by it:
    otherwise each of two divisions could be better than the other with every breath of the load.
    """
    for level in _levels(ordered):
        missing = [
            sum(_missing(claim, one.targets[claim.key]) for claim in level) for one in (found, kept)
        ]
        if missing[0] != missing[1]:
            return missing[0] < missing[1]
        ranks = [
            sorted(min(1.0, served(claim, one.targets[claim.key])) for claim in level)
            for one in (found, kept)
        ]
        for now, then in zip(*ranks, strict=True):
            if now > then * (1.0 + CLEAR_GAIN) + _SAME:
                return True
            if then > now * (1.0 + SLIGHT_LOSS) + _SAME:
                return False
    return False


def _missing(claim: Claim, counts: Mapping[Place, int]) -> int:
    return sum(max(0, claim.least[stage] - count_of(counts, stage)) for stage in claim.stages)
