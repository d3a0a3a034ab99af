"""Pods that change their stage in place: which stage each of them should have. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from disagfusion.scheduling.decision import Place
from disagfusion_operator.desired.names import COMPONENT_LABEL, FLEX
from disagfusion_operator.k8s.port import Object


def is_flex(deployment: Object) -> bool:
    """Tell whether the pods of a Deployment change their stage in place."""
    labels = deployment["metadata"].get("labels") or {}
    return bool(labels.get(COMPONENT_LABEL) == FLEX)


def together(deployments: Mapping[Place, Object]) -> dict[str, tuple[Place, ...]]:
    """Return the places of each Deployment, by its name."""
    found: dict[str, tuple[Place, ...]] = {}
    for place, one in deployments.items():
        name = one["metadata"]["name"]
        found[name] = (*found.get(name, ()), place)
    return found


def changing(deployments: Mapping[Place, Object]) -> list[tuple[Place, ...]]:
    """Return the places between which pods change in place, those of each pool together."""
    return [places for places in together(deployments).values() if is_flex(deployments[places[0]])]


def apportioned(
    total: int, live: Mapping[Place, int], wanted: Mapping[Place, int]
) -> dict[Place, int]:
    """Return how many of the replicas that are asked for are each place's.

    Pods have their place; those that are still to be made are for whoever lacks most, those that
    are still to end are of whoever has most too many.

    Args:
        total: That the Deployment asks for.
        live: Pods that do not terminate.
        wanted: Replicas that there should be.
    """
    counts = dict(live)
    while (have := sum(counts.values())) != total:

        def lacking(place: Place) -> int:
            return wanted.get(place, 0) - counts[place]

        if have < total:
            counts[max(counts, key=lacking)] += 1
        else:
            counts[min((one for one in counts if counts[one]), key=lacking)] -= 1
    return counts


def arranged(total: int, live: Mapping[Place, int], least: Mapping[Place, int]) -> dict[Place, int]:
    """Return which stages pods should have where nobody decides: minima, and what they have.

    Args:
        total: That the Deployment asks for; more are returned where minima are more.
        live: Pods that do not terminate.
        least: Minima.
    """
    counts = {place: least.get(place, 0) for place in live}
    while sum(counts.values()) < total:
        counts[max(counts, key=lambda place: live[place] - counts[place])] += 1
    return counts


def unchanged(asked: Mapping[Place, int], wanted: Mapping[Place, int]) -> dict[Place, int]:
    """Return as many replicas as are wanted where pods cannot change: of what they are already.

    Without that, those of a stage that has too many would end, and come back as what they were.

    Args:
        asked: Replicas that the Deployment asks for, by place.
        wanted: Replicas that there should be.
    """
    return apportioned(sum(mine(asked, wanted).values()), asked, wanted)


def exchange(
    live: Mapping[Place, int], keep: Mapping[Place, int], wanted: Mapping[Place, int]
) -> tuple[dict[Place, int], list[Place]]:
    """Return how many pods of places may change, and which places they are to have, in order.

    A stage that has no replica gets its first before any gets more.

    Args:
        live: Pods that do not terminate, by place.
        keep: Replicas that may not be less for the moment.
        wanted: Replicas that there should be.
    """
    spare = {place: max(0, count - keep.get(place, 0)) for place, count in live.items()}
    have = dict(live)
    targets: list[Place] = []
    while len(targets) < sum(spare.values()):
        lacking = [place for place, count in wanted.items() if have.get(place, 0) < count]
        if not lacking:
            break
        place = min(lacking, key=lambda one: have.get(one, 0) / wanted[one])
        have[place] = have.get(place, 0) + 1
        targets.append(place)
    return spare, targets


def mine(places: Iterable[Place], counts: Mapping[Place, int]) -> dict[Place, int]:
    """Return the counts of some places."""
    return {place: counts.get(place, 0) for place in places}


def choose(candidates: Sequence[tuple[Place, str]], spare: Mapping[Place, int]) -> list[str]:
    """Return those of pods that may change, in their order, no more of a place than it has spare.

    Args:
        candidates: Place and name.
        spare: Pods that may change, by place.
    """
    left = dict(spare)
    chosen = []
    for place, name in candidates:
        if left.get(place, 0) > 0:
            left[place] -= 1
            chosen.append(name)
    return chosen
