"""Kubernetes' HorizontalPodAutoscaler, one for each stage, on the share of time it computes.

Source: kubernetes `pkg/controller/podautoscaler/replica_calculator.go`: desired = ceil(current ·
usage / target), no change within the tolerance, then the behaviour of `scheduling.behavior`. The
autoscalers know nothing of each other or of a budget: what finds no room is pending.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from disagfusion.scheduling.behavior import Behavior, ScaleHistory, limit
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Fresh, Observation
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.policies.bounds import Bounds

_TARGET = 0.8


@dataclass(frozen=True, slots=True)
class State:
    """Stage → history of its number of replicas."""

    histories: tuple[tuple[str, ScaleHistory], ...] = ()


class Hpa:
    """One autoscaler for each stage.

    Args:
        profile: Minima and maxima.
        pool: Where all stages run.
        target: Share of time that a replica should compute.
        behavior: Rules for both directions.
    """

    name = "hpa"
    period = 15.0

    def __init__(
        self,
        profile: Profile,
        pool: str,
        target: float = _TARGET,
        behavior: Behavior | None = None,
    ) -> None:
        self._stages = tuple(profile.stages)
        self._bounds = Bounds(profile, pool)
        self._pool = pool
        self._target = target
        self._behavior = behavior or Behavior()

    def initial(self) -> State:
        """Return the state to begin with."""
        return State()

    def decide(self, state: State, observation: Observation, now: float) -> tuple[State, Decision]:
        """Decide what should be done; see `Balancer`."""
        histories = dict(state.histories)
        moves = []
        for stage in self._stages:
            counts = observation.replicas[stage][self._pool]
            current = counts.committed
            wanted = self._wanted(observation, stage, current, counts.ready)
            wanted = min(self._bounds.most(stage), max(self._bounds.least(stage), wanted))
            history = histories.get(stage, ScaleHistory())
            history, limited = limit(history, current, wanted, self._behavior, now)
            by = limited.replicas - current
            histories[stage] = history.applied(now, by)
            place = Place(stage, self._pool)
            if by > 0:
                moves.append(Move(None, place, by))
            elif by < 0:
                # A ReplicaSet deletes pods that are pending or start before those that are ready.
                taken_back = min(-by, counts.starting)
                if taken_back:
                    moves.append(Move(place, None, taken_back, cancel=True))
                if taken_back < -by:
                    moves.append(Move(place, None, -by - taken_back))
        reason = Reason.BALANCED
        if moves:
            reason = Reason.SCALE_DOWN if moves[0].target is None else Reason.SCALE_UP
        return State(tuple(histories.items())), Decision(now, tuple(moves), reason)

    def _wanted(self, observation: Observation, stage: str, current: int, ready: int) -> int:
        busy = observation.loads[stage].busy
        if not isinstance(busy, Fresh) or not ready:
            return current
        ratio = busy.value / self._target
        if abs(1.0 - ratio) <= self._behavior.up.tolerance:
            return current
        # Those that start count as idle on the way up, and as busy on the way down.
        if ready < current and ratio > 1.0:
            ratio *= ready / current
            if ratio <= 1.0 + self._behavior.up.tolerance:
                return current
            return math.ceil(ratio * current)
        return math.ceil(ratio * ready) + (current - ready)
