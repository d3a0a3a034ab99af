"""The balancer's gauges: what it sees, what it wants, what it has learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from disagfusion.balancing.instances import Phase
from disagfusion.balancing.learner import Learner
from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.scheduling.decision import Decision, Place
from disagfusion.scheduling.profile import Profile
from disagfusion.telemetry.metrics import BalancerMetrics, ReplicaState

_STATES: dict[Phase, ReplicaState] = {
    Phase.READY: "ready",
    Phase.STARTING: "starting",
    Phase.DRAINING: "draining",
}


class Exporter:
    """Sets the gauges, once for each decision.

    Args:
        metrics: The gauges.
        pipeline: Value of the label of that name.
        profile: Stages and pools.
        signals: Know the workers, by the last observation.
        waiting: Starts that wait for room.
        learner: Has the performance model.
        budget: Accelerators in use at most.
    """

    def __init__(
        self,
        metrics: BalancerMetrics,
        pipeline: str,
        profile: Profile,
        signals: EmbeddedSignals,
        waiting: Sequence[Place],
        learner: Learner,
        *,
        budget: int,
    ) -> None:
        self._metrics = metrics
        self._pipeline = pipeline
        self._profile = profile
        self._signals = signals
        self._waiting = waiting
        self._learner = learner
        self._budget = budget

    def export(self, decision: Decision) -> None:
        """Export the last observation, and what is wanted with this decision."""
        self._export_replicas(decision)
        self._export_accelerators()
        self._export_model(decision.at)

    def _export_replicas(self, decision: Decision) -> None:
        waiting = Counter(self._waiting)
        wanted = waiting.copy()
        states: Counter[tuple[Place, ReplicaState]] = Counter()
        for one in self._signals.instances:
            states[one.place, _STATES[one.phase]] += 1
            if one.phase is not Phase.DRAINING or one.unheard:
                wanted[Place(one.wanted, one.place.pool)] += 1
        for move in decision.moves:
            if move.source is not None:
                wanted[move.source] -= move.count
            if move.target is not None:
                wanted[move.target] += move.count
        for stage, costs in self._profile.stages.items():
            for pool in costs.pools:
                place = Place(stage, pool)
                self._metrics.desired(stage, pool).set(max(0, wanted[place]))
                self._metrics.replicas(stage, pool, "waiting").set(waiting[place])
                for state in _STATES.values():
                    self._metrics.replicas(stage, pool, state).set(states[place, state])

    def _export_accelerators(self) -> None:
        held: Counter[str] = Counter()
        for one in self._signals.instances:
            place = one.place
            held[place.pool] += self._profile.stages[place.stage].pools[place.pool].accelerators
        for name, pool in self._profile.pools.items():
            self._metrics.accelerators(name, "usable").set(min(pool.accelerators, self._budget))
            self._metrics.accelerators(name, "held").set(held[name])

    def _export_model(self, now: float) -> None:
        rows = {(self._pipeline, row.stage, row.pool): row for row in self._learner.summary(now)}
        metrics = self._metrics
        metrics.model_version.show({key: row.version for key, row in rows.items()})
        metrics.model_samples.show({key: row.stored or 0 for key, row in rows.items()})
        metrics.model_correction.show({key: row.correction for key, row in rows.items()})
        metrics.model_error.show(
            {key: row.error for key, row in rows.items() if row.error is not None}
        )
