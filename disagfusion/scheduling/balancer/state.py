"""What the balancer remembers from one decision to the next; never changed, only replaced."""

from __future__ import annotations

from dataclasses import dataclass, field

from disagfusion.scheduling.balancer.forecast import History
from disagfusion.scheduling.balancer.sizing import Histories
from disagfusion.scheduling.decision import Move, Place
from disagfusion.scheduling.observation import Observation


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that has begun.

    Attributes:
        move: Which one.
        begun: When.
        expires: When it counts as failed.
        restless: Replicas that drained or started at its ends before it began: failed ones that
            wait for their repair, for instance, are not its own.
    """

    move: Move
    begun: float
    expires: float
    restless: int = 0

    def finished(self, observation: Observation, now: float) -> bool:
        """Whether none that it moves drains or starts any more."""
        return now > self.begun and restless(self.move, observation) <= self.restless


def restless(move: Move, observation: Observation) -> int:
    """Return how many replicas drain where a move begins, and start where it ends."""
    replicas = observation.replicas
    source, target = move.source, move.target
    draining = 0 if source is None else replicas[source.stage][source.pool].draining
    starting = 0 if target is None else replicas[target.stage][target.pool].starting
    return draining + starting


@dataclass(frozen=True, slots=True)
class State:
    """What the balancer remembers.

    Attributes:
        history: Arrivals of late.
        pending: Changes that are not finished.
        full: Pool → until when it counts as full, since replicas did not start there.
        blind_since: Since when signals have been missing; None: they are there.
        idle_since: Since when there has been no work; None: there is some.
        sizes: Stage → what its number of replicas was recommended to be, and was changed to.
        asleep: The replicas there were before all stages went to zero; empty: they have not.
    """

    history: History = field(default_factory=History)
    pending: tuple[Pending, ...] = ()
    full: tuple[tuple[str, float], ...] = ()
    blind_since: float | None = None
    idle_since: float | None = None
    sizes: Histories = ()
    asleep: tuple[tuple[Place, int], ...] = ()
