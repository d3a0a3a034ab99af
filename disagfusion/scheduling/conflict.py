"""Why there is no plan: conditions that every plan would have to meet, and one that fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from disagfusion.scheduling.instance import Instance, Place, describe

_MOST_STAGES = 12
"""Of more there would be too many subsets."""


def find_conflict(instance: Instance) -> str | None:
    """Return a sentence about a condition that no plan can meet; None if none was found."""
    required = [name for name, stage in instance.profile.stages.items() if stage.min]
    for name in required:
        if not _places(instance, [name]):
            return misfit(instance, name)
    for name in required:
        if sentence := _room(instance, name):
            return sentence
    taken = sum(_least(instance, name) for name in required)
    if instance.budget is not None and taken > instance.budget:
        return f"the stages' minima take {_accelerators(taken)}, the budget is {instance.budget}"
    if len(required) > _MOST_STAGES:
        return None
    for size in range(2, len(required) + 1):
        for names in combinations(required, size):
            if sentence := _shared(instance, names):
                return sentence
    return None


def misfit(instance: Instance, stage: str) -> str:
    """Return why a stage can run nowhere."""
    parts = []
    for pool, where in instance.profile.stages[stage].pools.items():
        shape = instance.misfit(stage, pool)
        has = instance.profile.pools[pool].memory_gib
        if shape is not None and has is not None:
            needs = where.memory_of(shape)
            parts.append(f"{describe(shape)} needs {needs:g} GiB, {pool} has {has:g}")
    return f"{stage} fits no pool: {'; '.join(parts)}"


def _places(instance: Instance, stages: Iterable[str]) -> list[Place]:
    return [place for place in instance.places if place.stage in set(stages)]


def _least(instance: Instance, stage: str) -> int:
    """Return how many accelerators the stage's least number of replicas takes at least."""
    cheapest = min(place.accelerators for place in _places(instance, [stage]))
    return instance.profile.stages[stage].min * cheapest


def _room(instance: Instance, stage: str) -> str | None:
    places = _places(instance, [stage])
    pools = instance.profile.pools
    fitting = sum(pools[place.pool].accelerators // place.accelerators for place in places)
    least = instance.profile.stages[stage].min
    if fitting >= least:
        return None
    names = listed([place.pool for place in places])
    have = "has" if len(places) == 1 else "have"
    return f"{stage} needs at least {_replicas(least)}, {names} {have} room for {fitting}"


def _shared(instance: Instance, stages: Sequence[str]) -> str | None:
    pools = {place.pool for place in _places(instance, stages)}
    names = [name for name in instance.pools if name in pools]
    have = sum(instance.profile.pools[name].accelerators for name in names)
    needed = sum(_least(instance, stage) for stage in stages)
    if needed <= have:
        return None
    verb = "has" if len(names) == 1 else "have"
    return (
        f"the minima of {listed(stages)} take {_accelerators(needed)}, "
        f"{listed(names)} {verb} {have}"
    )


def listed(names: Sequence[str]) -> str:
    """Return names as people list them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _accelerators(count: int) -> str:
    return f"{count:,} accelerator{'' if count == 1 else 's'}"


def _replicas(count: int) -> str:
    return f"{count:,} replica{'' if count == 1 else 's'}"
