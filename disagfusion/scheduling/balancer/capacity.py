"""What a ratio of replicas could do in the long run, or roughly with the work there is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from disagfusion.scheduling.balancer.fleet import Room
from disagfusion.scheduling.balancer.outlook import Change, Outlook, Spot
from disagfusion.scheduling.balancer.view import View
from disagfusion.scheduling.decision import Move, Place
from disagfusion.scheduling.observation import Predictor
from disagfusion.scheduling.shapes import Shape


class Capacity:
    """Jobs per second of the slowest stage, as the planner counts them.

    Args:
        view: Stages and pools.
        room: The replicas there are, or will be; those that cannot start are none.
        mix: Jobs per second by shape, over a long time.
        rates: The same of late.
        predictor: How long stages take.
    """

    def __init__(
        self,
        view: View,
        room: Room,
        mix: Mapping[Shape, float],
        rates: Mapping[Shape, float],
        predictor: Predictor,
    ) -> None:
        self._rate = sum(rates.values())
        self._counts = {
            place: room.count(place) - room.stuck(place) for place in view.spots.values()
        }
        self._lasting = _speeds(view, mix, predictor)
        self._present = _speeds(view, rates, predictor)

    def after(self, moves: Sequence[Move]) -> float | None:
        """Return the throughput after moves, over the one without them; None: nothing comes."""
        if not self._lasting:
            return None
        before = self._throughput(self._lasting, {})
        after = self._throughput(self._lasting, _changed(moves))
        return after / before if before > 0.0 else math.inf

    def falls_short(self, moves: Sequence[Move]) -> bool:
        """Whether the fleet would not keep up with the jobs that come, though it does now."""
        if not self._present or self._throughput(self._present, {}) < self._rate:
            return False
        return self._throughput(self._present, _changed(moves)) < self._rate

    def _throughput(self, speeds: Mapping[Place, float], changed: Mapping[Place, int]) -> float:
        flows: dict[str, float] = {}
        for place, speed in speeds.items():
            count = self._counts[place] + changed.get(place, 0)
            flows[place.stage] = flows.get(place.stage, 0.0) + count * speed
        return min(flows.values())


def _speeds(view: View, rates: Mapping[Shape, float], predictor: Predictor) -> dict[Place, float]:
    """Return jobs per second of one replica, by place; empty where none come."""
    total = sum(rates.values())
    if not total:
        return {}
    return {
        place: total
        / sum(
            rate * predictor.seconds(place.stage, place.pool, shape)
            for shape, rate in rates.items()
        )
        for place in view.spots.values()
    }


def _changed(moves: Sequence[Move]) -> dict[Place, int]:
    changed: dict[Place, int] = {}
    for move in moves:
        for place, by in ((move.source, -move.count), (move.target, move.count)):
            if place is not None and not move.cancel:
                changed[place] = changed.get(place, 0) + by
    return changed


class Backlog:
    """The work of an outlook, for a rough look at many changes before a few are looked at well.

    Args:
        outlook: Jobs and replicas.
    """

    def __init__(self, outlook: Outlook) -> None:
        self._seconds = outlook.seconds
        self._counts = {spot: outlook.unit * len(free) for spot, free in outlook.free.items()}
        self._jobs: list[dict[int, float]] = [{} for _ in outlook.seconds]
        for item in outlook.items:
            for jobs in self._jobs[item.stage :]:
                jobs[item.kind] = jobs.get(item.kind, 0.0) + item.weight

    def after(self, changes: Sequence[Change]) -> tuple[float, float]:
        """Return how long the busiest stage will be busy after changes, and all of them summed."""
        counts = dict(self._counts)
        for change in changes:
            for spot, by in ((change.source, -change.leaving), (change.target, change.count)):
                if spot is not None:
                    counts[spot] = counts.get(spot, 0) + by
        times = [self._stage(stage, counts) for stage in range(len(self._seconds))]
        return max(times), sum(times)

    def _stage(self, stage: int, counts: Mapping[Spot, int]) -> float:
        total = 0.0
        for kind, jobs in self._jobs[stage].items():
            speed = sum(
                counts.get((stage, pool), 0) / seconds[kind]
                for pool, seconds in self._seconds[stage].items()
            )
            total += jobs / speed if speed > 0.0 else math.inf
        return total
