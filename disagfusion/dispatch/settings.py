"""The dispatcher's settings and the admission of new jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from disagfusion.errors import InvalidArgumentError, ResourceExhaustedError

QueueOrder = Literal["submission", "arrival", "shortest"]


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """How the dispatcher behaves; times in seconds.

    Attributes:
        max_attempts: Attempts that may fail while they run before a job ends FAILED.
        max_setbacks: Attempts that may end through no fault of the job's (refused, input or
            output lost before it ran) before it ends FAILED.
        max_transfer_failures: Failed hand-overs of one output after which it is made again.
        recovery_grace: After a start, how long jobs that had begun wait for their workers.
        prefetch_horizon: A busy worker takes another job when its predicted remaining time is at
            most this, or twice the average transfer where that is longer.
        transfer_timeout: After which an input that has not arrived is given up.
        ambiguous_transfer_timeout: The same where it is not known that it was ever sent.
        first_backoff: Before a refused job is tried again; doubles each time.
        max_backoff: Longest wait between tries.
        strikes: Jobs a worker may fail that succeed elsewhere before it is quarantined.
        strike_seconds: After which a strike is forgotten.
        version_patience: How long jobs wait for a model version of which no worker takes work
            before they start again with another.
        loading_patience: The same while a worker of that version loads.
        waiting_per_slot: Jobs that may wait for a stage, per input slot of that stage, before the
            stage in front of it is held back.
        max_in_flight: Jobs that may be ENCODING or later at a time; 0 for no such limit.
        lookahead: Waiting jobs that are looked at in one decision; of those behind them only the
            number counts.
        queue_order: Among jobs that wait for a stage, have begun alike and have the same priority:
            "submission", the first that was submitted; "arrival", the first that came to the
            stage; or "shortest", the one for which the stage is predicted to take the fewest
            seconds at the time when it begins to wait.
    """

    max_attempts: int = 5
    max_setbacks: int = 20
    max_transfer_failures: int = 3
    recovery_grace: float = 3.0
    prefetch_horizon: float = 0.25
    transfer_timeout: float = 30.0
    ambiguous_transfer_timeout: float = 2.0
    first_backoff: float = 0.05
    max_backoff: float = 5.0
    strikes: int = 2
    strike_seconds: float = 600.0
    version_patience: float = 30.0
    loading_patience: float = 300.0
    waiting_per_slot: int = 2
    max_in_flight: int = 0
    lookahead: int = 32
    queue_order: QueueOrder = "submission"

    def __post_init__(self) -> None:
        if self.queue_order not in get_args(QueueOrder):
            known = " or ".join(f'"{order}"' for order in get_args(QueueOrder))
            raise InvalidArgumentError(
                "queue_order", f"{self.queue_order!r} is no order of a queue", expected=known
            )


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How much may be accepted; 0 means no limit.

    Attributes:
        queued: Jobs that have not begun.
        unfinished_per_tenant: Jobs of one tenant that have not ended.
    """

    queued: int = 1000
    unfinished_per_tenant: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What admission has to know.

    Attributes:
        queued: Jobs that have not begun.
        unfinished_of_tenant: Jobs of this tenant that have not ended.
        seconds_per_job: Predicted time between two jobs that end, in a full system.
    """

    queued: int
    unfinished_of_tenant: int
    seconds_per_job: float


def admit(load: Load, limits: AdmissionLimits, *, tenant: str) -> None:
    """Let one more job in, or say when to come back.

    Args:
        load: From `Dispatcher.load`, plus submissions the caller has under way.
        limits: The bounds.
        tenant: For the message.

    Raises:
        ResourceExhaustedError: A bound is reached; `retry_after` is the predicted time until a
            tenth of the bound is free again, between 0.1 and 60 seconds.
    """
    if limits.queued and load.queued >= limits.queued:
        raise ResourceExhaustedError(
            f"the queue is full: {load.queued} of {limits.queued} jobs wait",
            reason="QUEUE_FULL",
            retry_after=_retry_after(load, limits.queued),
        )
    if limits.unfinished_per_tenant and load.unfinished_of_tenant >= limits.unfinished_per_tenant:
        raise ResourceExhaustedError(
            f"tenant {tenant!r} has {load.unfinished_of_tenant} unfinished jobs"
            f" of {limits.unfinished_per_tenant} allowed",
            reason="TENANT_QUOTA",
            retry_after=_retry_after(load, limits.unfinished_per_tenant),
        )


def _retry_after(load: Load, bound: int) -> float:
    return min(60.0, max(0.1, load.seconds_per_job * math.ceil(bound / 10)))
