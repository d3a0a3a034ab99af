"""The rule: look ahead under every candidate change, and change what is better done now than later.

A prediction (profile or fitted model, and a forecast of arrivals) says what the unfinished work
would come to; the feedback is that work itself, observed anew each time. A change is made when it
improves the outlook by more than the tolerance *and* no later time for it would be better: a
replica of the bottleneck that drains early is lost for nothing while others still have work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from disagfusion.scheduling.balancer.forecast import History
from disagfusion.scheduling.balancer.outlook import Change, Outlook, Prospect, Spot
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.view import Predictor, View
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Fresh, Invalid, Missing, Observation, Signal, Stale
from disagfusion.scheduling.profile import Profile


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that has begun.

    Attributes:
        move: Which one.
        begun: When.
        expires: When it counts as failed.
    """

    move: Move
    begun: float
    expires: float


@dataclass(frozen=True, slots=True)
class State:
    """What the balancer remembers.

    Attributes:
        history: Arrivals of late.
        pending: Changes that are not finished.
    """

    history: History = field(default_factory=History)
    pending: tuple[Pending, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: Spot
    target: Spot
    count: int
    score: float = math.inf


class Hybrid:
    """Balances a fleet of a given size.

    Args:
        profile: Stages, pools, minima and maxima.
        predictor: How long stages take.
        load_seconds: How long a replica takes from the end of its last job until it works
            somewhere.
        settings: How it behaves.
    """

    name = "hybrid"

    def __init__(
        self,
        profile: Profile,
        predictor: Predictor,
        load_seconds: Callable[[Place], float],
        settings: BalancerSettings | None = None,
    ) -> None:
        self._profile = profile
        self._predictor = predictor
        self._load_seconds = load_seconds
        self._settings = settings or BalancerSettings()
        self._view = View.of(profile)
        self.period = self._settings.period

    def initial(self) -> State:
        """Return the state to begin with."""
        return State()

    def decide(self, state: State, observation: Observation, now: float) -> tuple[State, Decision]:
        """Decide what should be done; see `Balancer`."""
        settings = self._settings
        arrived = observation.arrived
        history = state.history
        if isinstance(arrived, Fresh):
            history = history.add(arrived.value, now, settings.forecast_window)
        pending = tuple(one for one in state.pending if not _finished(one, observation, now))
        expired = [one for one in pending if now >= one.expires]
        pending = tuple(one for one in pending if now < one.expires)
        state = replace(state, history=history, pending=pending)
        if pending:
            return state, _hold(now, Reason.CHANGE_UNDER_WAY, _describe(pending[0].move))
        if not isinstance(observation.jobs, Fresh):
            return state, _hold(now, *_absent(observation.jobs, "unfinished jobs"))
        if not observation.jobs.value:
            return state, _hold(now, Reason.NO_DEMAND)
        outlook = self._view.outlook(
            observation,
            observation.jobs.value,
            history.rates(now),
            settings.forecast_horizon,
            self._predictor,
            (),
            now,
        )
        decision = self._choose(outlook, observation, now)
        if expired and not decision.moves:
            decision = _hold(now, Reason.PENDING_EXPIRED, _describe(expired[0].move))
        begun = tuple(
            Pending(move, now, now + self._expected_seconds(move) + settings.change_timeout)
            for move in decision.moves
        )
        return replace(state, pending=begun), decision

    def _expected_seconds(self, move: Move) -> float:
        return 0.0 if move.target is None else self._load_seconds(move.target)

    def _choose(self, outlook: Outlook, observation: Observation, now: float) -> Decision:
        base = self._score(outlook.prospect())
        candidates = [
            replace(one, score=self._score(outlook.prospect([self._change(one, 0.0)])))
            for one in self._candidates(observation, outlook.unit)
        ]
        best = min(candidates, key=lambda one: one.score, default=None)
        if best is None:
            return _hold(now, Reason.AT_LIMIT, "no stage has a replica to spare")
        details = {"score": base, "best": best.score}
        if best.score >= base:
            return Decision(now, (), Reason.BALANCED, details=details)
        if best.score > base * (1.0 - self._settings.tolerance):
            return Decision(now, (), Reason.WITHIN_TOLERANCE, self._say(best, base), details)
        for delay in self._settings.delays:
            for one in candidates:
                if one.count == outlook.unit or one is best:
                    later = self._score(outlook.prospect([self._change(one, delay)]))
                    if later < best.score:
                        message = f"{self._say(one, base)}, in {delay:g} s rather than now"
                        return Decision(now, (), Reason.WAIT, message, details)
        move = Move(self._view.spots[best.source], self._view.spots[best.target], best.count)
        return Decision(now, (move,), Reason.REBALANCE, self._say(best, base), details)

    def _score(self, prospect: Prospect) -> float:
        settings = self._settings
        return (
            settings.weight_last * prospect.last
            + settings.weight_mean * prospect.mean
            + settings.weight_p95 * prospect.p95
        )

    def _change(self, one: _Candidate, delay: float) -> Change:
        seconds = self._load_seconds(self._view.spots[one.target])
        return Change(delay, one.source, one.target, one.count, seconds)

    def _candidates(self, observation: Observation, unit: int) -> Iterator[_Candidate]:
        """Yield changes of stage within a pool, in steps that double."""
        for source, place in self._view.spots.items():
            counts = observation.replicas[place.stage][place.pool]
            of_stage = _committed(observation, place.stage)
            spare = min(counts.ready, of_stage - max(1, self._profile.stages[place.stage].min))
            for target, other in self._view.spots.items():
                if target[1] != source[1] or target[0] == source[0]:
                    continue
                most = self._profile.stages[other.stage].max
                room = spare
                if most is not None:
                    room = min(room, most - _committed(observation, other.stage))
                count = unit
                while count <= room:
                    yield _Candidate(source, target, count)
                    count *= 2

    def _say(self, one: _Candidate, base: float) -> str:
        source, target = self._view.spots[one.source], self._view.spots[one.target]
        gain = 100.0 * (1.0 - one.score / base) if math.isfinite(base) else 100.0
        return (
            f"{one.count} from {source.stage} to {target.stage} on {source.pool}:"
            f" outlook {gain:.1f} % better"
        )


def _committed(observation: Observation, stage: str) -> int:
    return sum(replicas.committed for replicas in observation.replicas[stage].values())


def _finished(pending: Pending, observation: Observation, now: float) -> bool:
    if now <= pending.begun:
        return False
    ends = [place for place in (pending.move.source, pending.move.target) if place is not None]
    return all(
        not observation.replicas[place.stage][place.pool].draining
        and not observation.replicas[place.stage][place.pool].starting
        for place in ends
    )


def _describe(move: Move) -> str:
    source = "new" if move.source is None else move.source.stage
    target = "none" if move.target is None else move.target.stage
    return f"{move.count} from {source} to {target}"


def _hold(now: float, reason: Reason, message: str = "") -> Decision:
    return Decision(now, (), reason, message)


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
