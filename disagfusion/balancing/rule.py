"""The rule of the running system: that of the simulator, with what people and replays tell it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from disagfusion.local.hold import Hold
from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.state import State
from disagfusion.scheduling.decision import Decision, Reason
from disagfusion.scheduling.observation import Observation


class Tuner(Protocol):
    """Knows better settings as time goes by."""

    @property
    def settings(self) -> BalancerSettings:
        """In use."""
        ...

    def consider(self, observation: Observation, now: float) -> None:
        """Take note of an observation; whatever takes time happens elsewhere."""
        ...

    def news(self) -> tuple[str, ...]:
        """Return what has been found since it was asked last."""
        ...


class SteeredRule:
    """Decides by the rule with the settings of the moment; a hold keeps the ratio.

    Settings and holds come from outside: both count from the next decision on.

    Args:
        make: Makes the rule with settings.
        settings: To use where there is no tuner.
        hold: Returns the hold of the moment, if any.
        tuner: Has the settings, and may change them.
    """

    def __init__(
        self,
        make: Callable[[BalancerSettings], Hybrid],
        settings: BalancerSettings,
        hold: Callable[[], Hold | None],
        tuner: Tuner | None = None,
    ) -> None:
        self._make = make
        self._hold = hold
        self._tuner = tuner
        self._given = self._settings = settings
        self._rule = make(settings)

    @property
    def name(self) -> str:
        """Of the rule."""
        return self._rule.name

    @property
    def period(self) -> float:
        """Seconds between two decisions."""
        return self._settings.period

    def initial(self) -> State:
        """Return the state to begin with."""
        return self._rule.initial()

    def decide(self, state: State, observation: Observation, now: float) -> tuple[State, Decision]:
        """Decide what should be done; see `Balancer`."""
        notes: tuple[str, ...] = ()
        hold, settings = self._hold(), self._given
        if self._tuner is not None:
            settings, notes = self._tuner.settings, self._tuner.news()
            self._tuner.consider(observation, now)
        if hold is not None:
            settings = replace(settings, paused=True)
        if settings != self._settings:
            self._settings, self._rule = settings, self._make(settings)
        after, decision = self._rule.decide(state, observation, now)
        if decision.reason is Reason.PAUSED:
            # Changes that come to no end meanwhile are given up afterwards, not forgotten.
            kept = tuple(one for one in state.pending if not one.finished(observation, now))
            after = replace(after, pending=kept)
        if hold is not None:
            decision = replace(decision, message=str(hold))
        return after, replace(decision, notes=(*decision.notes, *notes))
