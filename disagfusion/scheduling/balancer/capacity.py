"""The throughput that a ratio of replicas could keep up for a mix of jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from disagfusion.scheduling.balancer.view import View
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.observation import Observation, Predictor
from disagfusion.scheduling.shapes import Shape


class Capacity:
    """Jobs per second of the slowest stage, as the planner counts them.

    Args:
        view: Stages and pools.
        observation: The replicas there are, or will be.
        rates: The mix.
        predictor: How long stages take.
    """

    def __init__(
        self,
        view: View,
        observation: Observation,
        rates: Mapping[Shape, float],
        predictor: Predictor,
    ) -> None:
        total = sum(rates.values())
        self._known = total > 0.0
        self._counts = {
            place: observation.replicas[place.stage][place.pool].committed
            for place in view.spots.values()
        }
        self._speeds = {
            place: total
            / sum(
                rate * predictor.seconds(place.stage, place.pool, shape)
                for shape, rate in rates.items()
            )
            for place in (view.spots.values() if self._known else ())
        }

    def after(self, source: Place | None, target: Place | None, count: int) -> float | None:
        """Return the throughput after a move, over the one without it; None: nothing comes."""
        if not self._known:
            return None
        before = self._throughput({})
        changed: dict[Place, int] = {}
        if source is not None:
            changed[source] = -count
        if target is not None:
            changed[target] = count
        return self._throughput(changed) / before if before > 0.0 else math.inf

    def _throughput(self, changed: Mapping[Place, int]) -> float:
        flows: dict[str, float] = {}
        for place, speed in self._speeds.items():
            count = self._counts[place] + changed.get(place, 0)
            flows[place.stage] = flows.get(place.stage, 0.0) + count * speed
        return min(flows.values())
