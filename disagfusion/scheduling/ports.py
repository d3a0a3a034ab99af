"""Where a balancer's signals come from, and who carries out what it decides."""

from __future__ import annotations

from abc import ABC, abstractmethod

from disagfusion.scheduling.decision import Decision
from disagfusion.scheduling.observation import Observation


class SignalSource(ABC):
    """Observes a system."""

    @abstractmethod
    async def observe(self, now: float) -> Observation:
        """Return the system as it is now.

        What could not be asked for is Missing, what is old is Stale, what is no value is Invalid;
        none of them is ever a zero. Never fails because the system does not answer.

        Args:
            now: Seconds of the balancer's clock.
        """


class Actuator(ABC):
    """Changes a system."""

    @abstractmethod
    async def carry_out(self, decision: Decision, now: float) -> None:
        """Begin what was decided, and go on with what was begun before.

        To be called after every decision, also after one without moves: a start may have waited
        for room. The accelerators in use never exceed the budget meanwhile.

        Args:
            decision: What to begin.
            now: Seconds of the balancer's clock.
        """
