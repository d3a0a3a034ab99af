"""What the dispatcher is told. Times are in its caller's `now`, Unix seconds.

What a worker says begins with who says it: its name and its incarnation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from disagfusion.jobs.model import (
    FailureKind,
    JobState,
    Output,
    Stage,
    StageRecord,
    StageStatus,
)


class WorkerState(enum.IntEnum):
    """Whether a worker takes work; the protocol's numbers."""

    LOADING = 1
    READY = 2
    DRAINING = 3
    QUARANTINED = 4


class OutputKey(NamedTuple):
    """Names what one stage produced for one attempt of a job."""

    job_id: str
    stage: Stage
    attempt: int


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself, as far as dispatch is concerned.

    Attributes:
        name: Unique among those that live.
        incarnation: New each time it starts.
        stages: What it does.
        pipeline: For which pipeline.
        version: Of the model; one job never mixes versions.
        state: Whether it takes work.
        slots: Inputs that it has room for, free or not.
        pool: Those of one pool have the same kind of accelerator; empty: it is like no other.
    """

    name: str
    incarnation: str
    stages: frozenset[Stage]
    pipeline: str
    version: str
    state: WorkerState
    slots: int
    pool: str = ""


@dataclass(frozen=True, slots=True)
class RunningAssignment:
    """An assignment that a worker says it has."""

    job_id: str
    attempt: int
    stage: Stage
    status: StageStatus
    step: int = 0
    num_inference_steps: int = 0


class HeldOutput(NamedTuple):
    """A finished output that a worker says it holds; `media` for decoders only."""

    output: OutputKey
    size_bytes: int
    media: tuple[Output, ...] = ()
    record: StageRecord | None = None


class JobSubmitted(NamedTuple):
    """A new job is in the store, QUEUED. Jobs are submitted in the order of these events."""

    job_id: str
    tenant: str
    pipeline: str
    priority: int = 0
    deadline: float | None = None
    cost_key: str = ""
    num_inference_steps: int = 0


class JobRecovered(NamedTuple):
    """After a start: an unfinished job as the store has it, in the order of submission."""

    job: JobSubmitted
    state: JobState
    stage_status: StageStatus
    attempt: int
    version: str
    failures: int
    contested: bool = False
    """Whether it was another gateway's, which may not know yet that it is not any more."""


class CancelRequested(NamedTuple):
    """Somebody wants a job to end."""

    job_id: str
    message: str = ""


class TakeOverBegun(NamedTuple):
    """Jobs of another gateway are to be recovered; these workers will say what they have of it."""

    workers: frozenset[str]


class HandedOver(NamedTuple):
    """What a worker has of the gateways that were taken over."""

    worker: str
    incarnation: str
    running: tuple[RunningAssignment, ...] = ()
    held: tuple[HeldOutput, ...] = ()


class JobDropped(NamedTuple):
    """The store refused a change of this job: it is somebody else's now. Let go of it."""

    job_id: str


class WorkerConnected(NamedTuple):
    """A worker's hello: the whole truth about it."""

    worker: WorkerInfo
    running: tuple[RunningAssignment, ...] = ()
    held: tuple[HeldOutput, ...] = ()
    grant_ids: tuple[str, ...] = ()


class WorkerDisconnected(NamedTuple):
    """A worker's stream broke; it may come back with all it has. Nothing new goes to it."""

    worker: str
    incarnation: str


class WorkerLost(NamedTuple):
    """A worker is given up: its assignments and what it held are gone."""

    worker: str
    incarnation: str
    reason: str = ""


class WorkerStateChanged(NamedTuple):
    """A worker's state, or its engine, is another."""

    worker: WorkerInfo
    reason: str = ""


class GrantsOffered(NamedTuple):
    """More rights to fill one slot once."""

    worker: str
    incarnation: str
    grant_ids: tuple[str, ...]


class GrantsRecalled(NamedTuple):
    """Another gateway has use for these grants."""

    worker: str
    incarnation: str
    grant_ids: tuple[str, ...]


class InputReceived(NamedTuple):
    """An assignment's input is in its slot, verified."""

    worker: str
    incarnation: str
    job_id: str
    attempt: int
    receive_seconds: float = 0.0
    size_bytes: int = 0


class StageStarted(NamedTuple):
    """The engine has begun."""

    worker: str
    incarnation: str
    job_id: str
    attempt: int
    stage: Stage


class StepCompleted(NamedTuple):
    """One denoising step is done."""

    worker: str
    incarnation: str
    job_id: str
    attempt: int
    step: int
    num_inference_steps: int


class StageDone(NamedTuple):
    """The output of a stage is safe in the front's memory."""

    worker: str
    incarnation: str
    held: HeldOutput


class StageFailed(NamedTuple):
    """A stage did not come to its end."""

    worker: str
    incarnation: str
    job_id: str
    attempt: int
    stage: Stage
    kind: FailureKind
    message: str = ""
    record: StageRecord | None = None


class OutputSent(NamedTuple):
    """The receiver has acknowledged an output; `attempt` is the receiving assignment's."""

    worker: str
    incarnation: str
    output: OutputKey
    attempt: int
    send_seconds: float = 0.0
    size_bytes: int = 0
    transport: str = ""


class SendFailed(NamedTuple):
    """An output could not be handed over; `attempt` is the receiving assignment's."""

    worker: str
    incarnation: str
    output: OutputKey
    attempt: int
    output_lost: bool = False
    message: str = ""


class ResultFailure(enum.Enum):
    """Why a result could not be fetched and stored."""

    STORAGE = "storage"
    """No room here: tried again until there is."""
    UNAVAILABLE = "unavailable"
    """The worker did not answer: tried again a few times."""
    LOST = "lost"
    """The worker has it no more, or it is damaged: decoded again."""


class ResultStored(NamedTuple):
    """All outputs of an attempt are in the result store."""

    job_id: str
    attempt: int
    outputs: tuple[Output, ...] = ()


class ResultFailed(NamedTuple):
    """The outputs of an attempt are not in the result store."""

    job_id: str
    attempt: int
    failure: ResultFailure
    message: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; to be given at `Dispatcher.next_wakeup()`."""


Event = (
    JobSubmitted
    | JobRecovered
    | CancelRequested
    | JobDropped
    | WorkerConnected
    | WorkerDisconnected
    | WorkerLost
    | WorkerStateChanged
    | GrantsOffered
    | GrantsRecalled
    | TakeOverBegun
    | HandedOver
    | InputReceived
    | StageStarted
    | StepCompleted
    | StageDone
    | StageFailed
    | OutputSent
    | SendFailed
    | ResultStored
    | ResultFailed
    | Tick
)
