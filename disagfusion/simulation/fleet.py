"""Simulated replicas: what each one runs, holds and waits for."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from disagfusion.jobs.model import Stage
from disagfusion.scheduling.decision import Place
from disagfusion.simulation.clock import Clock


class Phase(enum.Enum):
    """What a replica is about."""

    STARTING = enum.auto()
    READY = enum.auto()
    DRAINING = enum.auto()


@dataclass(slots=True)
class Task:
    """One stage of one attempt of a job on a replica."""

    job_id: str
    attempt: int
    received: bool = False
    started: float | None = None


@dataclass(slots=True, eq=False)
class Replica:
    """A replica of a stage.

    Attributes:
        name: Unique; stays when the stage changes.
        place: Its stage and pool; where it goes, while it starts.
        phase: What it is about.
        since: When that began.
        available_at: When it is ready, while it starts.
        target: Where it goes once drained; None: nowhere.
        tasks: What it was given; the first runs if it has started.
        held: By job and stage, the attempt of outputs that the next stage does not have yet.
        leaves_at: When it gives up what it holds, once it has drained.
        epoch: Counts its starts: what was timed for an earlier one is void.
        grants: Rights to fill a slot that it has given so far.
    """

    name: str
    place: Place
    phase: Phase
    since: float
    available_at: float = 0.0
    target: Place | None = None
    tasks: deque[Task] = field(default_factory=deque)
    held: dict[tuple[str, Stage], int] = field(default_factory=dict)
    leaves_at: float | None = None
    epoch: int = 0
    grants: int = 0

    @property
    def incarnation(self) -> str:
        """Tells this life of the replica from earlier ones."""
        return str(self.epoch)


class Fleet:
    """All replicas, by place; knows how many accelerators they take."""

    def __init__(self, accelerators: dict[Place, int], clock: Clock) -> None:
        self._accelerators = accelerators
        self._replicas: dict[str, Replica] = {}
        self._by_place: dict[Place, dict[str, Replica]] = {place: {} for place in accelerators}
        self._used = 0
        self._created = 0
        self._clock = clock
        self._seconds = dict.fromkeys(accelerators, 0.0)
        self._counted = 0.0
        self.most_used = 0

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas.values())

    def __len__(self) -> int:
        return len(self._replicas)

    @property
    def used(self) -> int:
        """Accelerators that replicas hold, whatever they are about."""
        return self._used

    def accelerators(self, place: Place) -> int:
        """Return what one replica takes."""
        return self._accelerators[place]

    def used_of(self, pool: str) -> int:
        """Return the accelerators of a pool that replicas hold."""
        return sum(
            self._accelerators[place] * len(replicas)
            for place, replicas in self._by_place.items()
            if place.pool == pool
        )

    @property
    def places(self) -> list[Place]:
        """Where replicas can be."""
        return list(self._accelerators)

    def held_seconds(self, now: float) -> dict[Place, float]:
        """Return for how many seconds replicas were there, summed over them."""
        elapsed, self._counted = now - self._counted, now
        for place, replicas in self._by_place.items():
            self._seconds[place] += elapsed * len(replicas)
        return dict(self._seconds)

    def get(self, name: str) -> Replica | None:
        """Return a replica that exists."""
        return self._replicas.get(name)

    def at(self, place: Place) -> list[Replica]:
        """Return the replicas of a place, oldest first."""
        return list(self._by_place[place].values())

    def add(self, place: Place) -> Replica:
        """Create a replica that starts."""
        self.held_seconds(self._clock.now)
        self._created += 1
        replica = Replica(f"{place.stage}-{self._created}", place, Phase.STARTING, self._clock.now)
        self._replicas[replica.name] = replica
        self._place(replica, place)
        return replica

    def relocate(self, replica: Replica, place: Place) -> None:
        """Let a replica belong to another place."""
        self.held_seconds(self._clock.now)
        del self._by_place[replica.place][replica.name]
        self._used -= self._accelerators[replica.place]
        self._place(replica, place)

    def remove(self, replica: Replica) -> None:
        """Free a replica's accelerators."""
        self.held_seconds(self._clock.now)
        del self._replicas[replica.name]
        del self._by_place[replica.place][replica.name]
        self._used -= self._accelerators[replica.place]

    def _place(self, replica: Replica, place: Place) -> None:
        replica.place = place
        self._by_place[place][replica.name] = replica
        self._used += self._accelerators[place]
        self.most_used = max(self.most_used, self._used)
