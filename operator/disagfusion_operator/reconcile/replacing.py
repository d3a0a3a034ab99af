"""Which stages are replaced as a whole: their old pods are gone before new ones come."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from disagfusion.scheduling.decision import Place
from disagfusion_operator.desired.names import version_of
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.k8s.states import is_leaving, is_over, seconds_of
from disagfusion_operator.reconcile.observe import crew_of
from disagfusion_operator.reconcile.rollout import Turn
from disagfusion_operator.scaling.capacity import LATE_SECONDS


def replaced(
    target: str,
    turns: Mapping[str, Turn],
    places: Collection[Place],
    pods: Iterable[Object],
    now: float,
) -> frozenset[str]:
    """Return the stages behind the first that get the target, until the last old pod is gone.

    Nobody needs their old pods any more. While these end they hold their accelerators, so new ones
    must not come yet.

    Args:
        target: The version that all should have.
        turns: What each stage may do, from the front to the back.
        places: That there should be.
        pods: Of all stages.
        now: Unix seconds.
    """
    ending = {crew_of(pod)[0] for pod in pods if _ends(pod, target, places, now)}
    behind = list(turns.items())[1:]
    return frozenset(name for name, turn in behind if turn.may and (turn.old or name in ending))


def _ends(pod: Object, target: str, places: Collection[Place], now: float) -> bool:
    if not is_leaving(pod) or is_over(pod) or version_of(pod) == target:
        return False
    if Place(*crew_of(pod)) not in places:
        return False
    return now < seconds_of(pod["metadata"]["deletionTimestamp"]) + LATE_SECONDS
