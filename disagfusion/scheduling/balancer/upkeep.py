"""What has to be done, or left alone, before there is anything to balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from disagfusion.scheduling.balancer.fleet import Room, places
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.state import Pending, State
from disagfusion.scheduling.balancer.steps import toward
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import (
    Fresh,
    Invalid,
    Missing,
    Observation,
    Replicas,
    Signal,
    Stale,
)
from disagfusion.scheduling.profile import Profile

_JOBS, _ARRIVALS = "unfinished jobs", "arrivals"


class Upkeep:
    """Keeps minima, gives up what never ends, and says what to do without signals or work.

    Args:
        profile: Stages, pools, minima.
        settings: How it behaves.
        fallback: Replicas to go to when signals have been missing for long.
    """

    def __init__(
        self, profile: Profile, settings: BalancerSettings, fallback: Mapping[Place, int]
    ) -> None:
        self._profile = profile
        self._settings = settings
        self._fallback = dict(fallback)
        self._places = tuple(places(profile))

    def decide(
        self,
        state: State,
        observation: Observation,
        expired: Sequence[Pending],
        room: Room,
        now: float,
    ) -> tuple[State, Decision | None]:
        """Return what has to be done; no decision where there are jobs and signals.

        Args:
            state: What is remembered; the one that is returned goes on from there.
            observation: The system now.
            expired: Changes that did not come to an end.
            room: For more replicas.
            now: Seconds.
        """
        if self._settings.paused:
            return state, Decision(now, (), Reason.PAUSED)
        if expired:
            return state, _give_up(expired, observation, now)
        if state.pending:
            message = _describe(state.pending[0].move)
            return state, Decision(now, (), Reason.CHANGE_UNDER_WAY, message)
        if state.asleep:
            state, decision = self._asleep(state, observation, room, now)
            if decision is not None:
                return state, decision
        moves = self._restore_minimum(room)
        if moves:
            return state, Decision(now, moves, Reason.SCALE_UP, "a stage is below its minimum")
        if not isinstance(observation.jobs, Fresh):
            return state, self._blind(state, *_absent(observation.jobs, _JOBS), room, now)
        if not observation.jobs.value:
            return self._idle(state, observation, now)
        if self.blind(observation):
            return state, self._blind(state, *_absent(observation.arrived, _ARRIVALS), room, now)
        return state, None

    def blind(self, observation: Observation) -> bool:
        """Whether signals are missing without which nothing changes.

        Who sizes by the demand can do without arrivals: more replicas may be needed all the same.
        """
        needed: tuple[Signal[Any], ...] = (observation.jobs,)
        if self._settings.sizing == "budget":
            needed = observation.jobs, observation.arrived
        return not all(isinstance(signal, Fresh) for signal in needed)

    def _restore_minimum(self, room: Room) -> tuple[Move, ...]:
        """Return starts for stages that have fewer replicas than they must; needs no signals."""
        moves = []
        for stage, profile in self._profile.stages.items():
            missing = profile.min - room.committed(stage)
            for place in self._places:
                if place.stage == stage and missing > 0 and (count := room.starts(place)):
                    count = min(count, missing)
                    room.take(place, count)
                    missing -= count
                    moves.append(Move(None, place, count))
        return tuple(moves)

    def _blind(
        self, state: State, reason: Reason, message: str, room: Room, now: float
    ) -> Decision:
        keeps = self._settings.fallback == "keep"
        if keeps or _since(state.blind_since, now) < self._settings.fallback_after:
            return Decision(now, (), reason, message)
        moves = toward(room, self._profile, self._fallback)
        return Decision(now, moves, Reason.FALLBACK, message)

    def _idle(
        self, state: State, observation: Observation, now: float
    ) -> tuple[State, Decision | None]:
        after, idle = self._settings.zero_after, _since(state.idle_since, now)
        if after is None or idle < after:
            # Who sizes by demand shrinks without any, too.
            sized = self._settings.sizing == "demand"
            return state, None if sized else Decision(now, (), Reason.NO_DEMAND)
        asleep = tuple((place, _at(observation, place).committed) for place in self._places)
        moves = self._all_away(observation)
        message = f"no work for {idle:.0f} s"
        return replace(state, asleep=asleep), Decision(now, moves, Reason.SCALE_DOWN, message)

    def _all_away(self, observation: Observation) -> tuple[Move, ...]:
        """Return stops of all replicas, those included that have not become ready."""
        moves = []
        for place in self._places:
            counts = _at(observation, place)
            if counts.ready:
                moves.append(Move(place, None, counts.ready))
            if counts.starting:
                moves.append(Move(place, None, counts.starting, cancel=True))
        return tuple(moves)

    def _asleep(
        self, state: State, observation: Observation, room: Room, now: float
    ) -> tuple[State, Decision | None]:
        """Bring all stages back at once when there is work, or when nobody knows for long."""
        as_they_were = dict(state.asleep)
        if not isinstance(observation.jobs, Fresh):
            reason, message = _absent(observation.jobs, _JOBS)
            if _since(state.blind_since, now) < self._settings.fallback_after:
                return state, Decision(now, (), reason, message)
            falls_back = self._settings.fallback == "ratio" and self._fallback
            moves = toward(room, self._profile, self._fallback if falls_back else as_they_were)
            return replace(state, asleep=()), Decision(now, moves, Reason.FALLBACK, message)
        if not observation.jobs.value:
            # A repair, or a change that was under way, may have come to its end meanwhile.
            moves = self._all_away(observation)
            return state, Decision(now, moves, Reason.NO_DEMAND, "all stages are at zero")
        moves = toward(room, self._profile, as_they_were)
        if not moves:
            return replace(state, asleep=()), None
        return state, Decision(now, moves, Reason.SCALE_UP, "there is work again")


def _give_up(expired: Sequence[Pending], observation: Observation, now: float) -> Decision:
    """Take back what has not started in time, and nobody else's starts."""
    asked: dict[Place, int] = {}
    for one in expired:
        source, target = one.move.source, one.move.target
        if target is None:
            continue
        count = one.move.count
        if source is not None and source.pool == target.pool:
            # Those that still finish their jobs have not begun to start.
            count -= min(count, _at(observation, source).draining)
        asked[target] = asked.get(target, 0) + count
    moves = tuple(
        Move(place, None, starting, cancel=True)
        for place, count in asked.items()
        if (starting := min(count, _at(observation, place).starting))
    )
    return Decision(now, moves, Reason.PENDING_EXPIRED, _describe(expired[0].move))


def _at(observation: Observation, place: Place) -> Replicas:
    return observation.replicas[place.stage][place.pool]


def _since(begin: float | None, now: float) -> float:
    return 0.0 if begin is None else now - begin


def _describe(move: Move) -> str:
    source = "new" if move.source is None else f"from {move.source.stage}"
    target = "away" if move.target is None else f"to {move.target.stage}"
    return f"{move.count} {source} {target}"


def _absent(signal: Signal[Any], name: str) -> tuple[Reason, str]:
    match signal:
        case Missing(why):
            return Reason.METRICS_MISSING, f"{name}: {why}" if why else name
        case Stale(_, at):
            return Reason.METRICS_STALE, f"{name}: measured at {at:.0f}"
        case Invalid(why):
            return Reason.METRICS_INVALID, f"{name}: {why}" if why else name
        case Fresh():
            raise AssertionError("a fresh signal is not absent")
