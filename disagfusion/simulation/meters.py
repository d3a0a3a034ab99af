"""Where jobs are, and what the replicas of a stage do with their time."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class JobRecord:
    """An unfinished job.

    Attributes:
        number: Rank of arrival.
        arrived: When it came.
        shape: Name of its shape.
        deviations: By which its service time in each stage is off.
        stage: Index of the stage it is in or waits for; None: in none that takes time.
        running: Whether a replica computes it.
        replica: That runs it, or ran it last.
        started: When that began.
    """

    number: int
    arrived: float
    shape: str
    deviations: tuple[float, ...]
    stage: int | None = None
    running: bool = False
    replica: str = ""
    started: float = 0.0


@dataclass(slots=True)
class StageMeter:
    """Integrates over time what a stage's replicas do.

    A replica that computes is busy. One that does not is starved if nothing waits for the stage,
    and otherwise blocked: dispatch holds jobs back because the next stage does not keep up.
    """

    serving: int = 0
    running: int = 0
    waiting: int = 0
    completed: int = 0
    service_seconds: float = 0.0
    busy: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    _at: float = field(default=0.0)

    def count(self, running: bool, by: int, now: float) -> None:
        """Count jobs in or out: those that are computed, or those that wait."""
        if now > self._at:
            self.advance(now)
        if running:
            self.running += by
        else:
            self.waiting += by

    def advance(self, now: float) -> None:
        """Account for the time until now; before each change of a number."""
        elapsed = now - self._at
        if elapsed <= 0.0:
            return
        self._at = now
        idle = max(0, self.serving - self.running)
        self.busy += elapsed * self.running
        if self.waiting:
            self.blocked += elapsed * idle
        else:
            self.starved += elapsed * idle
