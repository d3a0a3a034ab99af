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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from disagfusion.scheduling.balancer.capacity import Capacity
from disagfusion.scheduling.balancer.fleet import Room
from disagfusion.scheduling.balancer.lookahead import LookAhead
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.sizing import Sizing, changed
from disagfusion.scheduling.balancer.state import Pending, State, restless
from disagfusion.scheduling.balancer.steps import toward
from disagfusion.scheduling.balancer.targets import Targets
from disagfusion.scheduling.balancer.upkeep import Upkeep
from disagfusion.scheduling.balancer.view import View
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Fresh, JobGroup, Observation, Predictor
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
        self._upkeep = Upkeep(profile, self._settings, fallback or {})
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
        begun = tuple(
            Pending(
                move,
                now,
                now
                + self._expected_seconds(move, decision.moves, observation)
                + self._settings.change_timeout,
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
        window = max(self._settings.forecast_window, self._settings.mix_window)
        if isinstance(observation.arrived, Fresh):
            history = history.add(observation.arrived.value, now, window)
        else:
            history = history.without(now, window)
        unfinished = [one for one in state.pending if not one.finished(observation, now)]
        expired = [one for one in unfinished if now >= one.expires]
        full = dict((pool, until) for pool, until in state.full if until > now)
        for one in expired:
            if one.move.target is not None:
                full[one.move.target.pool] = now + self._settings.full_seconds
        blind = self._upkeep.blind(observation)
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
        state, held = self._upkeep.decide(state, observation, expired, room, now)
        if held is not None:
            return state, held
        jobs = observation.jobs
        assert isinstance(jobs, Fresh), "nothing is decided blindly"
        if self._settings.sizing == "demand":
            return self._size(state, observation, jobs.value, room, now)
        return state, self._balance(state, observation, jobs.value, room, now)

    def _size(
        self,
        state: State,
        observation: Observation,
        jobs: tuple[JobGroup, ...],
        room: Room,
        now: float,
    ) -> tuple[State, Decision]:
        history, window = state.history, self._settings.forecast_window
        known = isinstance(observation.arrived, Fresh)
        rates = history.rates(now, window) if known else {}
        known = known and history.covers(now, window)
        predictor = observation.predictor or self._predictor
        sized = self._sizing.size(
            observation, jobs, rates, predictor, state.sizes, now, shrinks=known
        )
        moves = toward(room, self._profile, sized.wanted)
        state = replace(state, sizes=changed(sized.histories, moves, now))
        if not moves:
            reason = Reason.BALANCED
            if sized.refused:
                reason = Reason.CONSOLIDATION_REFUSED
            elif sized.rate_limited:
                reason = Reason.RATE_LIMITED
            elif sized.stabilized:
                reason = Reason.STABILIZING
            elif any(room.count(place) != count for place, count in sized.wanted.items()):
                reason = Reason.AT_LIMIT
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

    def _expected_seconds(
        self, move: Move, moves: Sequence[Move], observation: Observation
    ) -> float:
        """Return how long a move takes: the jobs that run where replicas leave, and loading."""
        load = 0.0 if move.target is None else self._load_seconds(move.target)
        if move.source is not None:
            return load + self._drain_seconds(move.source, observation)
        # What starts may have to wait until others have stopped.
        stops = (one.source for one in moves if one.target is None and not one.cancel)
        drains = (self._drain_seconds(place, observation) for place in stops if place is not None)
        return load + max(drains, default=0.0)

    def _drain_seconds(self, place: Place, observation: Observation) -> float:
        if not isinstance(observation.jobs, Fresh):
            return 0.0
        stage, pool = self._view.stages.index(place.stage), place.pool
        predictor = observation.predictor or self._predictor
        running = [
            predictor.seconds(place.stage, pool, group.shape)
            for group in observation.jobs.value
            if (group.stage, group.pool) == (stage, pool)
        ]
        return max((one for one in running if math.isfinite(one)), default=0.0)
