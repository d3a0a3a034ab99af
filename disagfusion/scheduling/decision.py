"""What a balancer says: how many replicas there should be, how to get there, and why."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from disagfusion.scheduling.observation import Observation

S = TypeVar("S")


class Reason(enum.Enum):
    """Why a decision is what it is."""

    REBALANCE = "replicas change to another stage: all work is done sooner"
    SCALE_UP = "more replicas: the demand needs them"
    SCALE_DOWN = "fewer replicas: the demand can be met with less"
    BALANCED = "no other ratio does the work sooner"
    WAIT = "another ratio will be better, but not yet"
    WITHIN_TOLERANCE = "another ratio would be better by less than the tolerance"
    NO_DEMAND = "there is no work"
    CHANGE_UNDER_WAY = "an earlier change is not finished"
    STABILIZING = "an earlier recommendation within the window was another"
    RATE_LIMITED = "the policy allows no faster change"
    CONSOLIDATION_REFUSED = "one replica less would be too busy"
    AT_LIMIT = "a minimum, a maximum, the budget or a pool is reached"
    METRICS_MISSING = "a signal is missing: nothing changes"
    METRICS_STALE = "a signal is old: nothing changes"
    METRICS_INVALID = "a signal is no number: nothing changes"
    FALLBACK = "signals have been missing for long: the fallback applies"
    PENDING_EXPIRED = "replicas did not start in time: the pool counts as full"
    PAUSED = "scaling is paused"
    STATIC = "the ratio is fixed"


@dataclass(frozen=True, slots=True)
class Place:
    """A stage on a pool."""

    stage: str
    pool: str


@dataclass(frozen=True, slots=True)
class Move:
    """Replicas that leave one place for another; both legs or none.

    Attributes:
        source: Where they drain; None: they are new.
        target: Where they go; None: they end.
        count: How many.
        cancel: Whether it takes back replicas that start and have not become ready.
    """

    source: Place | None
    target: Place | None
    count: int = 1
    cancel: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What should be done now.

    Attributes:
        at: When it was made.
        moves: To be begun; none: nothing changes.
        reason: Why.
        message: The same for people, with figures.
        details: Figures that it rests on.
        notes: What else was found out on the way.
    """

    at: float
    moves: tuple[Move, ...]
    reason: Reason
    message: str = ""
    details: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Balancer(Protocol[S]):
    """A pure rule: the same state, observation and time give the same decision."""

    @property
    def name(self) -> str:
        """Of the rule."""
        ...

    @property
    def period(self) -> float:
        """Seconds between two decisions."""
        ...

    def initial(self) -> S:
        """Return the state to begin with."""
        ...

    def decide(self, state: S, observation: Observation, now: float) -> tuple[S, Decision]:
        """Decide what should be done.

        Args:
            state: From the last decision; never changed.
            observation: The system now.
            now: Seconds; never goes back.
        """
        ...
