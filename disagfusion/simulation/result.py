"""What came of a simulation."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from disagfusion.scheduling.decision import Decision
from disagfusion.simulation.meters import JobRecord
from disagfusion.simulation.workload import Measure


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of ascending values; 0 if there are none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Sample:
    """The system at the time of a decision.

    Attributes:
        at: Seconds.
        replicas: Stage → replicas that take work.
        waiting: Stage → jobs that wait.
        running: Stage → jobs that are computed.
    """

    at: float
    replicas: dict[str, int]
    waiting: dict[str, int]
    running: dict[str, int]


@dataclass(slots=True)
class Recording:
    """Collects what happens; 24 bytes for each job."""

    measure: Measure
    latencies: array[float] = field(default_factory=lambda: array("d"))
    latency_finishes: array[float] = field(default_factory=lambda: array("d"))
    finishes: array[float] = field(default_factory=lambda: array("d"))
    windows: list[int] = field(default_factory=list)
    attained: int = 0
    judged: int = 0
    samples: list[Sample] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.windows = [0] * len(self.measure.windows)

    def finish(self, job: JobRecord, now: float) -> None:
        """Take note of a job that has ended."""
        self.finishes.append(now)
        for index, (start, end) in enumerate(self.measure.windows):
            self.windows[index] += start <= now < end
        if job.number <= self.measure.skip_jobs:
            return
        latency = now - job.arrived
        self.latencies.append(latency)
        self.latency_finishes.append(now)
        objective = self.measure.objective_seconds
        if isinstance(objective, dict):
            objective = objective.get(job.shape)
        if objective is not None:
            self.judged += 1
            self.attained += latency <= objective


@dataclass(frozen=True, slots=True)
class Result:
    """A simulation's outcome.

    Attributes:
        policy: Which rule decided.
        submitted: Jobs that came.
        completed: Jobs that ended with a result.
        lost: Jobs that did not.
        last_finish_seconds: When the last one ended.
        latency_seconds: p50, p95, p99, mean and max, from arrival to end.
        attainment: Share of jobs within their objective; None where there is none.
        replica_seconds: Stage → seconds that replicas held accelerators for it.
        accelerator_seconds: Accelerators in use, integrated over time.
        cost: Price of those.
        moves: Replicas that were started, stopped or changed their stage.
        budget_exceeded: Instants at which more accelerators were in use than the budget allows.
        most_accelerators: The greatest number in use.
        finished_in_windows: Jobs that ended within each of the workload's windows.
        samples: The system at each decision.
        decisions: Those that changed something, and each first one for another reason.
        finishes: When each measured job ended, in that order.
        latencies: Of the same jobs.
    """

    policy: str
    submitted: int
    completed: int
    lost: int
    last_finish_seconds: float
    latency_seconds: dict[str, float]
    attainment: float | None
    replica_seconds: dict[str, float]
    accelerator_seconds: float
    cost: float
    moves: int
    budget_exceeded: int
    most_accelerators: int
    finished_in_windows: tuple[int, ...]
    samples: tuple[Sample, ...] = ()
    decisions: tuple[Decision, ...] = ()
    finishes: Sequence[float] = ()
    latencies: Sequence[float] = ()


def summarize_latencies(latencies: array[float]) -> dict[str, float]:
    """Return percentiles, mean and maximum."""
    ordered = sorted(latencies)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    summary = {name: percentile(ordered, share) for name, share in shares.items()}
    summary["mean"] = math.fsum(ordered) / len(ordered) if ordered else 0.0
    summary["max"] = ordered[-1] if ordered else 0.0
    return summary
