"""What a balancer is told: measured values with their age, never a zero that nobody measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from disagfusion.scheduling.shapes import Shape

T = TypeVar("T")


class Predictor(Protocol):
    """Knows how long a stage takes on a pool; nothing in it changes."""

    def seconds(self, stage: str, pool: str, shape: Shape) -> float:
        """Return the mean seconds of a job; infinite where it does not fit."""
        ...


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T]):
    """A value measured lately."""

    value: T
    at: float


@dataclass(frozen=True, slots=True)
class Stale(Generic[T]):
    """A value measured too long ago to act on."""

    value: T
    at: float


@dataclass(frozen=True, slots=True)
class Missing:
    """Nobody has measured it, or nobody could be asked."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Invalid:
    """What came is no value: NaN, negative, not a number."""

    why: str = ""


Signal = Fresh[T] | Stale[T] | Missing | Invalid


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas of a stage on a pool; all of them hold accelerators.

    Attributes:
        ready: Take work.
        starting: Will, after loading; those that change their stage count where they go.
        draining: Finish what they have and leave, or change their stage.
        starting_since: When the longest-starting one began.
        available_at: Predicted times at which those that start will take work; may be empty.
    """

    ready: int = 0
    starting: int = 0
    draining: int = 0
    starting_since: float | None = None
    available_at: tuple[float, ...] = ()

    @property
    def committed(self) -> int:
        """Those that take work or will."""
        return self.ready + self.starting

    @property
    def held(self) -> int:
        """Those that hold accelerators."""
        return self.ready + self.starting + self.draining


@dataclass(frozen=True, slots=True)
class JobGroup:
    """Unfinished jobs that are alike.

    Attributes:
        stage: Index of the stage that they are in or wait for.
        shape: What they ask for.
        count: How many.
        age: Mean seconds since they were submitted.
        pool: Where they run; empty while they wait.
        elapsed: Mean seconds that they have run in this stage.
        draining: Whether the replicas they run on leave afterwards.
    """

    stage: int
    shape: Shape
    count: int
    age: float
    pool: str = ""
    elapsed: float = 0.0
    draining: bool = False


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What the ready replicas of a stage did since the last observation, as shares of the time.

    Attributes:
        busy: They computed.
        starved: They had no input.
        blocked: They had finished and nobody took the output: the next stage is too slow.
        waiting: Jobs that wait for this stage.
        completed: Jobs that this stage has finished since the last observation.
        seconds: Mean seconds of those; NaN-free: Missing where there were none.
        reporting: Replicas that the figures come from.
    """

    busy: Signal[float] = field(default_factory=Missing)
    starved: Signal[float] = field(default_factory=Missing)
    blocked: Signal[float] = field(default_factory=Missing)
    waiting: Signal[int] = field(default_factory=Missing)
    completed: Signal[int] = field(default_factory=Missing)
    seconds: Signal[float] = field(default_factory=Missing)
    reporting: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """The system at one moment.

    Attributes:
        replicas: Stage → pool → replicas.
        jobs: All unfinished jobs, oldest first.
        arrived: Jobs submitted since the last observation, by shape.
        loads: By stage.
        accelerators: Pool → accelerators that can be used now; those in use included.
        predictor: What is known by now of how long stages take; None: nothing beside the profile.
    """

    replicas: Mapping[str, Mapping[str, Replicas]]
    jobs: Signal[tuple[JobGroup, ...]]
    arrived: Signal[Mapping[Shape, int]]
    loads: Mapping[str, StageLoad]
    accelerators: Mapping[str, int]
    predictor: Predictor | None = None
