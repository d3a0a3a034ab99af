"""The rule: look ahead under every candidate change, and change what is better done now than later.

A prediction (profile or fitted model, and a forecast of arrivals) says what the unfinished work
would come to; the feedback is that work itself, observed anew each time. A change is made when it
improves the outlook by more than the tolerance *and* no later time for it would be better: a
replica of the bottleneck that drains early is lost for nothing while others still have work. The
outlook is looked at twice, once with the arrivals of late going on and once with none: what helps
against a forecast alone has to help much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from disagfusion.scheduling.balancer.capacity import Capacity
from disagfusion.scheduling.balancer.fleet import Room, places, toward
from disagfusion.scheduling.balancer.lookahead import LookAhead
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.sizing import Sizing
from disagfusion.scheduling.balancer.state import Pending, State, restless
from disagfusion.scheduling.balancer.targets import Targets
from disagfusion.scheduling.balancer.view import View
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import (
    Fresh,
    Invalid,
    JobGroup,
    Missing,
    Observation,
    Predictor,
    Signal,
    Stale,
)
from disagfusion.scheduling.profile import Profile


class Hybrid:
    """Balances a fleet within a budget.

    Args:
        profile: Stages, pools, minima and maxima.
        predictor: How long stages take, as long as observations do not say.
        load_seconds: How long a replica takes from the end of its last job until it works
            somewhere.
        settings: How it behaves.
        budget: Accelerators in all; by default all that the pools have.
        fallback: Replicas to go to when signals have been missing for long.
        loads_ahead: Whether a replica that changes its stage loads for a place while it finishes
            its jobs; by default none does.
    """

    def __init__(
        self,
        profile: Profile,
        predictor: Predictor,
        load_seconds: Callable[[Place], float],
        settings: BalancerSettings | None = None,
        *,
        budget: int | None = None,
        fallback: Mapping[Place, int] | None = None,
        loads_ahead: Callable[[Place], bool] = lambda place: False,
    ) -> None:
        self._profile = profile
        self._predictor = predictor
        self._load_seconds = load_seconds
        self._settings = settings or BalancerSettings()
        total = sum(pool.accelerators for pool in profile.pools.values())
        self._budget = total if budget is None else budget
        self._fallback = dict(fallback or {})
        self._view = View.of(profile)
        self._sizing = Sizing(profile, self._budget, self._settings)
        self._targets = Targets(profile, self._budget)
        self._look_ahead = LookAhead(self._view, load_seconds, loads_ahead, self._settings)

    @property
    def name(self) -> str:
        """`hybrid`; `elastic` where the fleet is sized by the demand."""
        return "elastic" if self._settings.sizing == "demand" else "hybrid"

    @property
    def period(self) -> float:
        """Seconds between two decisions."""
        return self._settings.period

    def initial(self) -> State:
        """Return the state to begin with."""
        return State()

    def decide(self, state: State, observation: Observation, now: float) -> tuple[State, Decision]:
        """Decide what should be done; see `Balancer`."""
        state, expired = self._remember(state, observation, now)
        state, decision = self._decide(state, observation, expired, now)
        if decision.reason is Reason.SCALE_DOWN and self._sleeps(decision, observation):
            kept = tuple((place, self._committed(observation, place)) for place in self._places())
            state = replace(state, asleep=kept)
        elif state.asleep and decision.reason is Reason.SCALE_UP:
            state = replace(state, asleep=())
        begun = tuple(
            Pending(
                move,
                now,
                now + self._expected_seconds(move, observation) + self._settings.change_timeout,
                restless(move, observation),
            )
            for move in decision.moves
            if not move.cancel
        )
        return replace(state, pending=(*state.pending, *begun)), decision

    def _remember(
        self, state: State, observation: Observation, now: float
    ) -> tuple[State, list[Pending]]:
        """Return the state with what is new, and the changes that did not come to an end."""
        history = state.history
        if isinstance(observation.arrived, Fresh):
            window = max(self._settings.forecast_window, self._settings.mix_window)
            history = history.add(observation.arrived.value, now, window)
        unfinished = [one for one in state.pending if not one.finished(observation, now)]
        expired = [one for one in unfinished if now >= one.expires]
        full = dict((pool, until) for pool, until in state.full if until > now)
        for one in expired:
            if one.move.target is not None:
                full[one.move.target.pool] = now + self._settings.full_seconds
        blind = not isinstance(observation.jobs, Fresh)
        idle = isinstance(observation.jobs, Fresh) and not observation.jobs.value
        state = replace(
            state,
            history=history,
            pending=tuple(one for one in unfinished if now < one.expires),
            full=tuple(full.items()),
            blind_since=(state.blind_since if state.blind_since is not None else now)
            if blind
            else None,
            idle_since=(state.idle_since if state.idle_since is not None else now)
            if idle
            else None,
        )
        return state, expired

    def _decide(
        self, state: State, observation: Observation, expired: list[Pending], now: float
    ) -> tuple[State, Decision]:
        room = Room(
            self._profile, self._budget, observation, frozenset(pool for pool, _ in state.full)
        )
        held = self._held_up(state, observation, expired, room, now)
        if held is not None:
            return state, held
        jobs = observation.jobs
        assert isinstance(jobs, Fresh), "nothing is decided blindly"
        if self._settings.sizing == "demand":
            return self._size(state, observation, jobs.value, room, now)
        return state, self._balance(state, observation, jobs.value, room, now)

    def _held_up(
        self,
        state: State,
        observation: Observation,
        expired: list[Pending],
        room: Room,
        now: float,
    ) -> Decision | None:
        """Return what has to be done, or left alone, before there is anything to balance."""
        if self._settings.paused:
            return Decision(now, (), Reason.PAUSED)
        if expired:
            return self._give_up(expired, observation, now)
        if state.pending:
            message = _describe(state.pending[0].move)
            return Decision(now, (), Reason.CHANGE_UNDER_WAY, message)
        if state.asleep:
            return self._wake(state, observation, room, now)
        moves = self._restore_minimum(observation, room)
        if moves:
            return Decision(now, moves, Reason.SCALE_UP, "a stage is below its minimum")
        if not isinstance(observation.jobs, Fresh):
            return self._blind(state, observation, room, now)
        if not observation.jobs.value:
            return self._idle(state, observation, now)
        return None

    def _size(
        self,
        state: State,
        observation: Observation,
        jobs: tuple[JobGroup, ...],
        room: Room,
        now: float,
    ) -> tuple[State, Decision]:
        rates = state.history.rates(now, self._settings.forecast_window)
        predictor = observation.predictor or self._predictor
        sized = self._sizing.size(observation, jobs, rates, predictor, state.sizes, now)
        state = replace(state, sizes=sized.histories)
        moves = toward(room, self._profile, sized.wanted, observation)
        if not moves:
            reason = Reason.BALANCED
            if sized.refused:
                reason = Reason.CONSOLIDATION_REFUSED
            elif sized.rate_limited:
                reason = Reason.RATE_LIMITED
            elif sized.stabilized:
                reason = Reason.STABILIZING
            return state, Decision(now, (), reason, sized.message)
        starts = sum(move.count for move in moves if move.source is None)
        stops = sum(move.count for move in moves if move.target is None)
        reason = Reason.REBALANCE
        if starts != stops:
            reason = Reason.SCALE_UP if starts > stops else Reason.SCALE_DOWN
        return state, Decision(now, moves, reason, sized.message)

    def _balance(
        self,
        state: State,
        observation: Observation,
        jobs: tuple[JobGroup, ...],
        room: Room,
        now: float,
    ) -> Decision:
        window, sigmas = self._settings.forecast_window, self._settings.shift_sigmas
        rates = state.history.rates(now, window, sigmas)
        mix = state.history.rates(now, self._settings.mix_window) if rates else {}
        horizon = self._settings.forecast_horizon
        predictor = observation.predictor or self._predictor
        scenarios = [
            self._view.outlook(observation, jobs, expected, horizon, predictor, (), now)
            for expected in ((rates, {}) if rates and horizon else ({},))
        ]
        capacity = Capacity(self._view, room, mix, rates, predictor)
        plans = self._targets.plans(observation, jobs, rates, horizon, predictor)
        return self._look_ahead.choose(scenarios, room, capacity, now, plans)

    def _give_up(self, expired: list[Pending], observation: Observation, now: float) -> Decision:
        """Take back what has not started in time."""
        moves = []
        for place in dict.fromkeys(one.move.target for one in expired):
            if place is not None:
                counts = observation.replicas[place.stage][place.pool]
                starting = min(counts.starting, sum(one.move.count for one in expired))
                if starting:
                    moves.append(Move(place, None, starting, cancel=True))
        return Decision(now, tuple(moves), Reason.PENDING_EXPIRED, _describe(expired[0].move))

    def _restore_minimum(self, observation: Observation, room: Room) -> tuple[Move, ...]:
        """Return starts for stages that have fewer replicas than they must; needs no signals."""
        moves = []
        for stage, profile in self._profile.stages.items():
            missing = profile.min - room.committed(stage)
            for place in self._places():
                if place.stage == stage and missing > 0 and (count := room.starts(place)):
                    count = min(count, missing)
                    room.take(place, count)
                    missing -= count
                    moves.append(Move(None, place, count))
        return tuple(moves)

    def _blind(self, state: State, observation: Observation, room: Room, now: float) -> Decision:
        reason, message = _absent(observation.jobs, "unfinished jobs")
        since = now if state.blind_since is None else state.blind_since
        if self._settings.fallback == "keep" or now - since < self._settings.fallback_after:
            return Decision(now, (), reason, message)
        moves = toward(room, self._profile, self._fallback, observation)
        return Decision(now, moves, Reason.FALLBACK, message)

    def _idle(self, state: State, observation: Observation, now: float) -> Decision | None:
        after = self._settings.zero_after
        since = now if state.idle_since is None else state.idle_since
        if after is None or now - since < after:
            # Who sizes by demand shrinks without any, too.
            sized = self._settings.sizing == "demand"
            return None if sized else Decision(now, (), Reason.NO_DEMAND)
        moves = tuple(
            Move(place, None, ready)
            for place in self._places()
            if (ready := observation.replicas[place.stage][place.pool].ready)
        )
        return Decision(now, moves, Reason.SCALE_DOWN, f"no work for {now - since:.0f} s")

    def _wake(self, state: State, observation: Observation, room: Room, now: float) -> Decision:
        """Bring all stages back at once when there is work, as they were."""
        if not isinstance(observation.jobs, Fresh):
            return Decision(now, (), *_absent(observation.jobs, "unfinished jobs"))
        if not observation.jobs.value:
            return Decision(now, (), Reason.NO_DEMAND, "all stages are at zero")
        moves = toward(room, self._profile, dict(state.asleep), observation)
        return Decision(now, moves, Reason.SCALE_UP, "there is work again")

    def _sleeps(self, decision: Decision, observation: Observation) -> bool:
        """Whether nothing is left after a decision."""
        left = sum(self._committed(observation, place) for place in self._places())
        return left == sum(move.count for move in decision.moves if move.target is None)

    def _places(self) -> list[Place]:
        return list(places(self._profile))

    def _committed(self, observation: Observation, place: Place) -> int:
        return observation.replicas[place.stage][place.pool].committed

    def _expected_seconds(self, move: Move, observation: Observation) -> float:
        """Return how long a move takes: the jobs that run at its source, and loading."""
        load = 0.0 if move.target is None else self._load_seconds(move.target)
        if move.source is None or not isinstance(observation.jobs, Fresh):
            return load
        stage, pool = self._view.stages.index(move.source.stage), move.source.pool
        predictor = observation.predictor or self._predictor
        running = [
            predictor.seconds(move.source.stage, pool, group.shape)
            for group in observation.jobs.value
            if (group.stage, group.pool) == (stage, pool)
        ]
        return load + max((one for one in running if math.isfinite(one)), default=0.0)


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
