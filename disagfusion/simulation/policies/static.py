"""The rule that never changes anything."""

from __future__ import annotations

from dataclasses import dataclass

from disagfusion.scheduling.decision import Decision, Reason
from disagfusion.scheduling.observation import Observation


@dataclass(frozen=True, slots=True)
class Static:
    """Keeps the ratio there is.

    Attributes:
        name: With the ratio, for tables.
        period: Seconds between two looks, which decide nothing.
    """

    name: str = "static"
    period: float = 10.0

    def initial(self) -> None:
        """Return no state."""

    def decide(self, state: None, observation: Observation, now: float) -> tuple[None, Decision]:
        """Decide to change nothing."""
        return None, Decision(now, (), Reason.STATIC)
