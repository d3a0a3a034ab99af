"""The choice among changes: the one with the best outlook, unless it would be better later."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from disagfusion.scheduling.balancer.capacity import Capacity
from disagfusion.scheduling.balancer.fleet import Room
from disagfusion.scheduling.balancer.outlook import Change, Outlook, Prospect, Spot
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.view import View
from disagfusion.scheduling.decision import Decision, Move, Place, Reason


@dataclass(frozen=True, slots=True)
class Candidate:
    """A change that could be made.

    Attributes:
        source: Where replicas drain; None: they are new.
        target: Where they go.
        count: How many.
        score: What is minimized if it were made now, over what it is without any change; the
            mean over the scenarios.
    """

    source: Spot | None
    target: Spot
    count: int
    score: float = math.inf


class LookAhead:
    """Chooses by looking at what would become of the unfinished jobs.

    Args:
        view: Names and indices.
        load_seconds: How long a replica takes from the end of its last job until it works
            somewhere.
        settings: How it behaves.
    """

    def __init__(
        self,
        view: View,
        load_seconds: Callable[[Place], float],
        settings: BalancerSettings,
    ) -> None:
        self._view = view
        self._load_seconds = load_seconds
        self._settings = settings

    def choose(
        self, scenarios: Sequence[Outlook], room: Room, capacity: Capacity, now: float
    ) -> Decision:
        """Return the change to be made now, or why there is none.

        Args:
            scenarios: What may come; each counts the same.
            room: For more replicas.
            capacity: In the long run.
            now: Seconds.
        """
        bases = [(outlook, self._cost(outlook.prospect())) for outlook in scenarios]
        unit = scenarios[0].unit
        candidates = [
            replace(one, score=self._score(bases, one, 0.0)) for one in self._candidates(room, unit)
        ]
        best = min(
            candidates, key=lambda one: one.score + self._tolerance(one, capacity), default=None
        )
        if best is None:
            message = "no stage has a replica to spare, and there is no room for another"
            return Decision(now, (), Reason.AT_LIMIT, message)
        details = {"seconds": bases[0][1], "best": best.score}
        if not best.score < 1.0:
            return Decision(now, (), Reason.BALANCED, details=details)
        message = self._say(best)
        if best.score > 1.0 - self._tolerance(best, capacity):
            return Decision(now, (), Reason.WITHIN_TOLERANCE, message, details)
        if best.source is not None:
            delay = self._better_later(bases, candidates, best, unit)
            if delay is not None:
                message = f"{message}, and better still in {delay:g} s"
                return Decision(now, (), Reason.WAIT, message, details)
        source, target = self._ends(best)
        move = Move(source, target, best.count)
        reason = Reason.SCALE_UP if source is None else Reason.REBALANCE
        return Decision(now, (move,), reason, message, details)

    def _better_later(
        self,
        bases: Sequence[tuple[Outlook, float]],
        candidates: Sequence[Candidate],
        best: Candidate,
        unit: int,
    ) -> float | None:
        """Return after how many seconds a change is better than the best one now."""
        for delay in self._settings.delays:
            for one in candidates:
                if one.source is None or (one.count > unit and one is not best):
                    continue
                if self._score(bases, one, delay) < best.score:
                    return delay
        return None

    def _score(self, bases: Sequence[tuple[Outlook, float]], one: Candidate, delay: float) -> float:
        """Return what a change makes of the costs, as their mean share."""
        change = self._change(one, delay)
        total = 0.0
        for outlook, base in bases:
            cost = self._cost(outlook.prospect([change]))
            if math.isinf(base):
                total += 1.0 if math.isinf(cost) else 0.0
            else:
                total += cost / base if base > 0.0 else 1.0
        return total / len(bases)

    def _tolerance(self, one: Candidate, capacity: Capacity) -> float:
        source, target = self._ends(one)
        lasting = capacity.after(source, target, one.count)
        if lasting is None or lasting > 1.0 + self._settings.lasting_gain:
            return self._settings.tolerance
        return self._settings.passing_tolerance

    def _ends(self, one: Candidate) -> tuple[Place | None, Place]:
        source = None if one.source is None else self._view.spots[one.source]
        return source, self._view.spots[one.target]

    def _cost(self, prospect: Prospect) -> float:
        settings = self._settings
        return (
            settings.weight_last * prospect.last
            + settings.weight_mean * prospect.mean
            + settings.weight_p95 * prospect.p95
        )

    def _change(self, one: Candidate, delay: float) -> Change:
        seconds = self._load_seconds(self._view.spots[one.target])
        return Change(delay, one.source, one.target, one.count, seconds)

    def _candidates(self, room: Room, unit: int) -> Iterator[Candidate]:
        """Yield starts, and changes of stage within a pool, in steps that double."""
        for target, place in self._view.spots.items():
            yield from _steps(None, target, unit, room.starts(place))
            for source, other in self._view.spots.items():
                if source[1] != target[1] or source[0] == target[0]:
                    continue
                if room.accelerators(other) != room.accelerators(place):
                    continue
                spare = min(room.ready(other), room.above_minimum(other.stage))
                count = min(spare, room.below_maximum(place.stage))
                yield from _steps(source, target, unit, count)

    def _say(self, one: Candidate) -> str:
        target = self._view.spots[one.target]
        source = "new" if one.source is None else f"from {self._view.spots[one.source].stage}"
        gain = 100.0 * (1.0 - one.score)
        return (
            f"{one.count} {source} to {target.stage} on {target.pool}: outlook {gain:.1f} % better"
        )


def _steps(source: Spot | None, target: Spot, unit: int, most: int) -> Iterator[Candidate]:
    count = unit
    while count <= most:
        yield Candidate(source, target, count)
        count *= 2
