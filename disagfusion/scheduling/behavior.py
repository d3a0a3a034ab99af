"""How fast a number of replicas may change: Kubernetes' HorizontalPodAutoscaler's semantics.

Source: kubernetes `pkg/controller/podautoscaler/horizontal.go` and the page "Horizontal Pod
Autoscaling" of its documentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """The most that may change within a period.

    Attributes:
        kind: Whether `value` is a number of pods or a percentage of them.
        value: How many.
        period_seconds: Within how long.
    """

    kind: Literal["Pods", "Percent"]
    value: int
    period_seconds: float


@dataclass(frozen=True, slots=True)
class Direction:
    """Rules for one direction.

    Attributes:
        stabilization_window_seconds: For so long the most careful recommendation holds.
        policies: Rates; none: no bound.
        select_policy: Which of several rates applies; "Disabled": no change this way.
        tolerance: Share by which usage may differ from its target without any change.
    """

    stabilization_window_seconds: float
    policies: tuple[RatePolicy, ...]
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    tolerance: float = 0.1


@dataclass(frozen=True, slots=True)
class Behavior:
    """Rules for both directions; Kubernetes' defaults."""

    up: Direction = Direction(0.0, (RatePolicy("Percent", 100, 15.0), RatePolicy("Pods", 4, 15.0)))
    down: Direction = Direction(300.0, (RatePolicy("Percent", 100, 15.0),))


@dataclass(frozen=True, slots=True)
class ScaleHistory:
    """What one number of replicas has been recommended to be, and was changed to.

    Attributes:
        recommendations: (time, replicas).
        changes: (time, replicas more or less).
    """

    recommendations: tuple[tuple[float, int], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()

    def applied(self, now: float, by: int) -> ScaleHistory:
        """Return the history with a change that was made."""
        return replace(self, changes=(*self.changes, (now, by))) if by else self


@dataclass(frozen=True, slots=True)
class Limited:
    """A number of replicas after all rules.

    Attributes:
        replicas: How many there should be.
        stabilized: Whether a window held it back.
        rate_limited: Whether a policy held it back.
    """

    replicas: int
    stabilized: bool
    rate_limited: bool


def limit(
    history: ScaleHistory, current: int, wanted: int, behavior: Behavior, now: float
) -> tuple[ScaleHistory, Limited]:
    """Apply stabilization and rates to a recommendation.

    Args:
        history: Of this number of replicas.
        current: Replicas there should be by the last decision.
        wanted: The new recommendation.
        behavior: The rules.
        now: Seconds.

    Returns:
        The history with this recommendation, and what is left of it. Tell the history by
        `applied` what was done.
    """
    up, down = behavior.up, behavior.down
    longest = max(up.stabilization_window_seconds, down.stabilization_window_seconds)
    kept = tuple(one for one in history.recommendations if now - one[0] <= longest)
    # As Kubernetes does when it begins: what there is counts as recommended.
    earlier = kept or ((now, current),)
    periods = [policy.period_seconds for policy in (*up.policies, *down.policies)]
    changes = tuple(one for one in history.changes if now - one[0] < max(periods, default=0.0))
    history = ScaleHistory((*earlier, (now, wanted)), changes)
    lowest = min([wanted, *_within(earlier, now, up.stabilization_window_seconds)])
    highest = max([wanted, *_within(earlier, now, down.stabilization_window_seconds)])
    stable = current
    if stable < lowest:
        stable = lowest
    if stable > highest:
        stable = highest
    allowed = stable
    if stable > current:
        allowed = min(stable, max(current, _ceiling(up, history, current, now)))
    elif stable < current:
        allowed = max(stable, min(current, _floor(down, history, current, now)))
    return history, Limited(allowed, stable != wanted, allowed != stable)


def _within(recommendations: tuple[tuple[float, int], ...], now: float, window: float) -> list[int]:
    return [replicas for at, replicas in recommendations if now - at < window]


def _ceiling(direction: Direction, history: ScaleHistory, current: int, now: float) -> int:
    if direction.select_policy == "Disabled":
        return current
    if not direction.policies:
        return current + 10**9
    bounds = []
    for policy in direction.policies:
        added = sum(by for at, by in history.changes if by > 0 and now - at < policy.period_seconds)
        start = current - added
        if policy.kind == "Pods":
            bounds.append(start + policy.value)
        else:
            bounds.append(math.ceil(start * (1.0 + policy.value / 100.0)))
    return max(bounds) if direction.select_policy == "Max" else min(bounds)


def _floor(direction: Direction, history: ScaleHistory, current: int, now: float) -> int:
    if direction.select_policy == "Disabled":
        return current
    if not direction.policies:
        return 0
    bounds = []
    for policy in direction.policies:
        removed = sum(
            -by for at, by in history.changes if by < 0 and now - at < policy.period_seconds
        )
        start = current + removed
        if policy.kind == "Pods":
            bounds.append(start - policy.value)
        else:
            bounds.append(int(start * (1.0 - policy.value / 100.0)))
    return min(bounds) if direction.select_policy == "Max" else max(bounds)
