"""What the balancer has to say of a pipeline: for status, conditions, events and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from disagfusion.scheduling.decision import Place
from disagfusion_operator.api.status import Condition


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition.

    Attributes:
        type: What it is about.
        holds: Whether it does; None: unknown.
        reason: One word for programs.
        message: A sentence for people.
    """

    type: Condition
    holds: bool | None
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that is worth an event, told once.

    Attributes:
        reason: One word for programs.
        message: A sentence for people.
        action: What was done.
        warning: Whether somebody should look.
    """

    reason: str
    message: str
    action: str = "Scale"
    warning: bool = False


@dataclass(frozen=True, slots=True)
class PlaceReport:
    """Replicas of a stage on a pool.

    Attributes:
        desired: As many as there should be.
        ready: Take work.
        starting: Were made and do not take work yet.
        waiting: Are to be made as soon as there is room.
        draining: Finish what they have; they hold accelerators.
        accelerators: That one replica takes.
    """

    desired: int = 0
    ready: int = 0
    starting: int = 0
    waiting: int = 0
    draining: int = 0
    accelerators: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """The last decision that changed something or has another reason than the one before it.

    Attributes:
        time: Unix seconds.
        reason: One word for programs, such as `Rebalance`.
        message: A sentence with figures.
    """

    time: float
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A pipeline after a step.

    Attributes:
        places: By place, those of the specification.
        findings: `ScalingActive`, `ScalingLimited`, `MetricsAvailable` and `Conflict`.
        happenings: Since the last step.
        choice: The last decision; None before the first.
        bottleneck: The stage that limits the throughput; empty where that is not known.
        throughput: Jobs per second over Prometheus' window; None where that is not known.
        backlog: Unfinished jobs; None where that is not known.
        settled: Whether there are as many ready replicas as there should be, and no others.
        again_after: Seconds after which the next step is due, if nothing happens before.
        budget: Accelerators that may be held.
        usable: Pool → accelerators that this pipeline may hold there.
        asleep: Whether all stages have left for want of work.
    """

    places: Mapping[Place, PlaceReport]
    findings: tuple[Finding, ...] = ()
    happenings: tuple[Happening, ...] = ()
    choice: Choice | None = None
    bottleneck: str = ""
    throughput: float | None = None
    backlog: int | None = None
    settled: bool = False
    again_after: float = 10.0
    budget: int = 0
    usable: Mapping[str, int] = field(default_factory=dict)
    asleep: bool = False
