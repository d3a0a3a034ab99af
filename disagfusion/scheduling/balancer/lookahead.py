"""The choice among changes: the one with the best outlook, unless it would be better later."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from disagfusion.scheduling.balancer.candidates import Candidate, Candidates, Leg
from disagfusion.scheduling.balancer.capacity import Backlog, Capacity
from disagfusion.scheduling.balancer.fleet import Room
from disagfusion.scheduling.balancer.outlook import Change, Outlook, Prospect
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.view import View
from disagfusion.scheduling.decision import Decision, Place, Reason

_MOST = 36
"""Changes that are looked at well; of more, those that look best at a rough look."""
_PARTNERS = 6
_ROUNDS = 2
_RIVALS = 4
"""Changes across pools that are tried at a later time."""
_EACH_LEG = 0.002
"""By so much must another move at the same time make it better."""


class LookAhead:
    """Chooses by looking at what would become of the unfinished jobs.

    Args:
        view: Names and indices.
        load_seconds: How long a replica takes from the end of its last job until it works
            somewhere.
        loads_ahead: Whether these seconds begin with the decision, for one that changes its stage.
        settings: How it behaves.
    """

    def __init__(
        self,
        view: View,
        load_seconds: Callable[[Place], float],
        loads_ahead: Callable[[Place], bool],
        settings: BalancerSettings,
    ) -> None:
        self._view = view
        self._load_seconds = load_seconds
        self._loads_ahead = loads_ahead
        self._settings = settings

    def choose(
        self,
        scenarios: Sequence[Outlook],
        room: Room,
        capacity: Capacity,
        now: float,
        plans: Sequence[Mapping[Place, int]] = (),
    ) -> Decision:
        """Return the change to be made now, or why there is none.

        Args:
            scenarios: What may come; each counts the same.
            room: For more replicas.
            capacity: In the long run.
            now: Seconds.
            plans: Replicas by place that may be good to go to.
        """
        bases = [(outlook, self._cost(outlook.prospect())) for outlook in scenarios]
        unit = scenarios[0].unit
        candidates = self._scored(bases, Candidates(self._view, room, unit), plans)
        best = min(candidates, key=lambda one: self._rank(one, capacity), default=None)
        if best is None:
            message = "no stage has a replica to spare, and there is no room for another"
            for stage in self._view.stages:
                if room.committed(stage) < room.least(stage):
                    message += f"; {stage} has {room.committed(stage)} of {room.least(stage)}"
            return Decision(now, (), Reason.AT_LIMIT, message)
        details = {"seconds": bases[0][1], "best": best.score}
        if not best.score < 1.0:
            return Decision(now, (), Reason.BALANCED, details=details)
        needed, why = self._tolerance(best, capacity)
        message = f"{self._say(best)}, {100.0 * needed:g} % needed{why}"
        if best.score > 1.0 - needed:
            return Decision(now, (), Reason.WITHIN_TOLERANCE, message, details)
        if not best.starts:
            delay = self._better_later(bases, candidates, best, unit)
            if delay is not None:
                message = f"{message}, and better still in {delay:g} s"
                return Decision(now, (), Reason.WAIT, message, details)
        moves = tuple(move for leg in best.legs if not leg.later for move in leg.moves(self._view))
        reason = Reason.SCALE_UP if best.starts else Reason.REBALANCE
        return Decision(now, moves, reason, message, details)

    def _scored(
        self,
        bases: Sequence[tuple[Outlook, float]],
        found: Candidates,
        plans: Sequence[Mapping[Place, int]],
    ) -> list[Candidate]:
        """Return changes with their scores; those that are not in place where there are such."""
        first = list(found.single())
        if not self._view.uniform:
            first = self._screened(
                bases, [*first, *found.across(), *found.swaps(), *found.exchanges()]
            )
            first += [one for one in map(found.toward, plans) if one is not None]
        scored = [replace(one, score=self._score(bases, one, 0.0)) for one in first]
        if not self._view.uniform:
            self._combine(bases, found, scored)
        return scored

    def _screened(
        self, bases: Sequence[tuple[Outlook, float]], candidates: list[Candidate]
    ) -> list[Candidate]:
        """Return those that look best at a rough look."""
        if len(candidates) <= _MOST:
            return candidates
        backlogs = [Backlog(outlook) for outlook, _ in bases]

        def rough(one: Candidate) -> tuple[float, float]:
            changes = self._changes(one, 0.0, bases[0][0])
            looks = [backlog.after(changes) for backlog in backlogs]
            return sum(busiest for busiest, _ in looks), sum(total for _, total in looks)

        return sorted(candidates, key=rough)[:_MOST]

    def _combine(
        self,
        bases: Sequence[tuple[Outlook, float]],
        found: Candidates,
        scored: list[Candidate],
    ) -> None:
        """Add the best change with another, and that with one more, while it gets better."""
        if not scored:
            return
        ordered = sorted(scored, key=lambda one: one.score)
        best = ordered[0]
        for _ in range(_ROUNDS):
            pairs = (found.together(best, other) for other in ordered[1 : 1 + _PARTNERS])
            more = [
                replace(pair, score=self._score(bases, pair, 0.0))
                for pair in pairs
                if pair is not None
            ]
            scored += more
            better = min(more, key=lambda one: one.score, default=best)
            if better.score >= best.score:
                return
            best = better

    def _better_later(
        self,
        bases: Sequence[tuple[Outlook, float]],
        candidates: Sequence[Candidate],
        best: Candidate,
        unit: int,
    ) -> float | None:
        """Return after how many seconds a change is better than the best one now."""
        rivals = [
            one for one in candidates if not one.starts and (one.count <= unit or one is best)
        ]
        if not self._view.uniform:
            rivals = sorted(rivals, key=lambda one: one.score)[:_RIVALS]
            rivals += [best] if best not in rivals else []
        for delay in self._settings.delays:
            for one in rivals:
                if self._score(bases, one, delay) < best.score:
                    return delay
        return None

    def _score(self, bases: Sequence[tuple[Outlook, float]], one: Candidate, delay: float) -> float:
        """Return what a change makes of the costs, as their mean share."""
        total = 0.0
        for outlook, base in bases:
            cost = self._cost(outlook.prospect(self._changes(one, delay, outlook)))
            if math.isinf(base):
                total += 1.0 if math.isinf(cost) else 0.0
            else:
                total += cost / base if base > 0.0 else 1.0
        return total / len(bases)

    def _rank(self, one: Candidate, capacity: Capacity) -> float:
        return one.score + self._tolerance(one, capacity)[0] + _EACH_LEG * (len(one.legs) - 1)

    def _tolerance(self, one: Candidate, capacity: Capacity) -> tuple[float, str]:
        """Return by what share a change must be better, and why if by more than usual."""
        moves = [move for leg in one.legs for move in leg.moves(self._view)]
        if capacity.falls_short(moves):
            why = " because the jobs that come would be too many then"
            return self._settings.shortfall_tolerance, why
        lasting = capacity.after(moves)
        if lasting is None or lasting > 1.0 + self._settings.lasting_gain:
            return self._settings.tolerance, ""
        return self._settings.passing_tolerance, " because it will not last"

    def _cost(self, prospect: Prospect) -> float:
        settings = self._settings
        return (
            settings.weight_last * prospect.last
            + settings.weight_mean * prospect.mean
            + settings.weight_p95 * prospect.p95
        )

    def _changes(self, one: Candidate, delay: float, outlook: Outlook) -> list[Change]:
        """Return what a candidate means; its second steps begin when the first ones are there."""
        changes = []
        for leg in one.legs:
            source = None if leg.stuck else leg.source
            target = self._view.spots[leg.target]
            seconds = self._load_seconds(target)
            in_place = source is not None and source[1] == leg.target[1] and leg.stops is None
            ahead = in_place and self._loads_ahead(target)
            changes.append(Change(delay, source, leg.target, leg.count, seconds, ahead, leg.stops))
        if any(leg.later for leg in one.legs):
            there = max(
                outlook.arrives(change)
                for change, leg in zip(changes, one.legs, strict=True)
                if not leg.later
            )
            changes = [
                replace(change, delay=there) if leg.later else change
                for change, leg in zip(changes, one.legs, strict=True)
            ]
        return changes

    def _say(self, one: Candidate) -> str:
        gain = 100.0 * (1.0 - one.score)
        legs = ", ".join(self._say_leg(leg) for leg in one.legs)
        return f"{legs}: outlook {gain:.1f} % better"

    def _say_leg(self, leg: Leg) -> str:
        target = self._view.spots[leg.target]
        source = "new"
        if leg.source is not None:
            place = self._view.spots[leg.source]
            across = f" on {place.pool}" if place.pool != target.pool else ""
            source = f"from {place.stage}{across}"
            if leg.stops is not None:
                source = f"instead of {leg.stops} of {place.stage}{across}"
        then = "then " if leg.later else ""
        return f"{then}{leg.count} {source} to {target.stage} on {target.pool}"
