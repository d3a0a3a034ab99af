"""What the state of balancing comes to as conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from disagfusion.scheduling.decision import Decision, Place, Reason
from disagfusion.scheduling.observation import Fresh, Invalid, Missing, Observation, Signal, Stale
from disagfusion_operator.api.status import Condition
from disagfusion_operator.scaling.report import Finding

BLIND = (Reason.METRICS_MISSING, Reason.METRICS_STALE, Reason.METRICS_INVALID, Reason.FALLBACK)
LIMITS = (Reason.AT_LIMIT, Reason.RATE_LIMITED)


def named(reason: Reason) -> str:
    """Return a reason as Kubernetes writes it: one word, such as `ScaleUp`."""
    return reason.name.title().replace("_", "")


def scaling_active(mode: str, problem: str, failure: str, decision: Decision | None) -> Finding:
    """Return whether the operator decides the number of replicas and can carry it out.

    Args:
        mode: Auto, Recommend or Off.
        problem: What is wrong with the specification or the profile; empty: nothing.
        failure: Why the API server could not be asked to change something; empty: it could.
        decision: The last; None before the first.
    """
    kind = Condition.SCALING_ACTIVE
    if mode == "Off":
        return Finding(kind, False, "Off", "scaling.mode is Off")
    if problem:
        return Finding(kind, False, "InvalidProfile", problem)
    if failure:
        return Finding(kind, False, "CannotScale", failure)
    if mode == "Recommend":
        return Finding(kind, False, "Recommend", "decisions are not carried out")
    if decision is None:
        return Finding(kind, None, "NotDecided", "nothing has been decided yet")
    if decision.reason is Reason.PAUSED:
        return Finding(kind, False, "Paused", decision.message or "scaling.paused is true")
    if decision.reason in BLIND:
        return Finding(kind, False, named(decision.reason), decision.message)
    return Finding(kind, True, "Active", "the operator keeps the ratio")


def learning(stages: Sequence[str]) -> Finding:
    """Return that nothing can be decided before the first jobs have gone through all stages."""
    message = f"too few jobs have gone through {', '.join(stages)}; there is no profile"
    return Finding(Condition.SCALING_ACTIVE, None, "Learning", message)


def scaling_limited(
    decision: Decision | None,
    full: Mapping[str, str],
    waiting: Sequence[str],
    endless: Sequence[str] = (),
) -> Finding:
    """Return whether something keeps the operator from what it would do.

    Args:
        decision: The last.
        full: Pool → why no more of it can be had.
        waiting: Stages that have fewer replicas than there should be, for want of room.
        endless: Pools of which nobody says how many accelerators may come.
    """
    kind = Condition.SCALING_LIMITED
    if full:
        message = "; ".join(f"{pool}: {why}" for pool, why in sorted(full.items()))
        return Finding(kind, True, "PoolFull", message)
    if waiting:
        return Finding(kind, True, "NoRoom", f"{', '.join(waiting)}: no accelerators are free")
    if decision is not None and decision.reason in LIMITS:
        message = decision.reason.value
        if endless and decision.reason is Reason.AT_LIMIT:
            message += (
                f"; {', '.join(endless)}: nodes come for more with capacity or scaling.budget"
            )
        return Finding(kind, True, named(decision.reason), message)
    return Finding(kind, False, "WithinBounds")


def metrics_available(observation: Observation | None) -> Finding:
    """Return whether there is what decisions rest on."""
    kind = Condition.METRICS_AVAILABLE
    if observation is None:
        return Finding(kind, None, "NotAsked", "no answer has come yet")
    needed: tuple[tuple[str, Signal[Any]], ...] = (
        ("unfinished jobs", observation.jobs),
        ("arrivals", observation.arrived),
    )
    for what, found in needed:
        match found:
            case Missing(why):
                return Finding(kind, False, "MetricsMissing", f"{what}: {why}")
            case Stale():
                return Finding(kind, False, "MetricsStale", f"{what}: measured too long ago")
            case Invalid(why):
                return Finding(kind, False, "MetricsInvalid", f"{what}: {why}")
            case Fresh():
                continue
    return Finding(kind, True, "Answered")


def conflict(conflicts: Mapping[Place, str], gateway: str = "", follows: bool = True) -> Finding:
    """Return whether somebody else scales.

    Args:
        conflicts: Who scales stages, by place.
        gateway: Who scales the gateways; empty: nobody.
        follows: Whether there may be as many of these as he says.
    """
    left = [
        f"{place.stage} on {place.pool}: {who}"
        for place, who in sorted(conflicts.items(), key=lambda one: (one[0].stage, one[0].pool))
    ]
    if gateway and follows:
        left.append(f"gateway: {gateway}")
    told = [f"{'; '.join(left)}; left alone by the operator"] if left else []
    if gateway and not follows:
        told.append(f"gateway: {gateway} is not followed, since SQLite is for one gateway")
    if not told:
        return Finding(Condition.CONFLICT, False, "None")
    return Finding(Condition.CONFLICT, True, "OtherAutoscaler", "; ".join(told))
