"""What a job is: states, records, events; plain values without protobuf, clock or storage.

Times are Unix seconds. The enumerations carry the numbers of `disagfusion/v1/*.proto`, so that a
conversion is `JobState(message.state)` and `message.state = int(state)`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from disagfusion.errors import FailedPreconditionError


class Stage(enum.IntEnum):
    """A part of the pipeline, in the order in which a job passes through."""

    ENCODER = 1
    DIT = 2
    DECODER = 3


class JobState(enum.IntEnum):
    """Where a job stands."""

    QUEUED = 1
    ENCODING = 2
    DENOISING = 3
    DECODING = 4
    SUCCEEDED = 5
    FAILED = 6
    CANCELLED = 7
    EXPIRED = 8

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self >= JobState.SUCCEEDED


class StageStatus(enum.IntEnum):
    """What a job does in its current stage.

    WAITING: no worker has it. TRANSFERRING: assigned, and its input is on the way or the engine
    is still busy. RUNNING: the engine computes, or the results are being fetched.
    """

    WAITING = 1
    TRANSFERRING = 2
    RUNNING = 3


class FailureKind(enum.IntEnum):
    """What has to be known of a failure to decide what happens next."""

    UNSPECIFIED = 0
    INVALID_ARGUMENT = 1
    ENGINE_LOST = 2
    OUT_OF_MEMORY = 3
    DEVICE_ERROR = 4
    NON_FINITE = 5
    INPUT_LOST = 6
    CANCELLED = 7
    REFUSED = 8
    INTERNAL = 9


STAGE_STATES = {
    Stage.ENCODER: JobState.ENCODING,
    Stage.DIT: JobState.DENOISING,
    Stage.DECODER: JobState.DECODING,
}
"""The state of a job while it is in each stage."""


@dataclass(frozen=True, slots=True)
class InputImage:
    """An encoded image and the pipeline input it is meant for."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Output:
    """One encoded result.

    Attributes:
        index: From 0.
        content_type: Such as "image/png".
        size_bytes: Length of the encoded bytes.
        height: Pixels.
        width: Pixels.
        num_frames: 1 for an image.
        sha256: Of the encoded bytes, lower-case hexadecimal.
        stored: False once retention has removed the bytes; what is known of them stays.
    """

    index: int
    content_type: str
    size_bytes: int
    height: int
    width: int
    num_frames: int
    sha256: str
    stored: bool = True


@dataclass(frozen=True, slots=True)
class StageRecord:
    """Where and how one stage of one attempt ran; fields as in the protocol's StageRecord."""

    stage: Stage
    attempt: int
    worker: str
    pid: int = 0
    device: str = ""
    threads: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    receive_seconds: float = 0.0
    send_seconds: float = 0.0
    bytes_out: int = 0
    transport: str = ""
    steps: int = 0
    outcome: str = "done"


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job ended FAILED, EXPIRED or CANCELLED.

    Attributes:
        reason: Upper-case identifier: a `FailureKind`'s name, "WORKER_LOST", "DEADLINE_EXCEEDED",
            "CANCELLED" or "RESULT_LOST".
        message: For people.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Denoising steps of the current attempt."""

    stage: Stage
    step: int
    num_inference_steps: int


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it is handed to the store.

    Attributes:
        job_id: Letters, digits, "-" and "_"; at most 64.
        tenant: Whose it is.
        pipeline: The pipeline's name.
        generation: The request without its images, encoded by the caller; opaque here.
        images: The request's images.
        fingerprint: `fingerprint.fingerprint` of everything that was asked for.
        submitted_at: Unix seconds.
        client_request_id: Unique per tenant where not empty.
        priority: Higher runs first.
        deadline: Unix seconds, or None.
        cost_key: Jobs with the same key take about as long on the same worker.
        num_inference_steps: Denoising steps, 0 where unknown.
        traceparent: W3C trace context.
    """

    job_id: str
    tenant: str
    pipeline: str
    generation: bytes
    fingerprint: str
    submitted_at: float
    images: tuple[InputImage, ...] = ()
    client_request_id: str = ""
    priority: int = 0
    deadline: float | None = None
    cost_key: str = ""
    num_inference_steps: int = 0
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is in the store.

    Attributes:
        version: The model version that the first assignment pinned; empty before.
        failures: Failed attempts that count against the limit.
        sequence: Number of the last durable event.
        outputs: Set in SUCCEEDED.
        error: Set in FAILED, EXPIRED and CANCELLED.
        stages: One record per stage and attempt, in the order in which they were first stored.

    The others are `NewJob`'s, and the protocol's Job's.
    """

    job_id: str
    tenant: str
    pipeline: str
    generation: bytes
    client_request_id: str
    priority: int
    submitted_at: float
    deadline: float | None
    cost_key: str
    num_inference_steps: int
    traceparent: str
    state: JobState
    stage_status: StageStatus
    attempt: int
    version: str
    failures: int
    sequence: int
    started_at: float | None = None
    ended_at: float | None = None
    error: JobError | None = None
    outputs: tuple[Output, ...] = ()
    stages: tuple[StageRecord, ...] = ()

    @property
    def accelerator_seconds(self) -> float:
        """Seconds computed for this job, all stages and attempts."""
        return sum(record.compute_seconds for record in self.stages)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One durable step in a job's life.

    Attributes:
        sequence: From 1, without gaps.
        time: Unix seconds.
        message: Why, when the state alone does not say it.
    """

    job_id: str
    sequence: int
    time: float
    state: JobState
    stage_status: StageStatus
    attempt: int
    message: str = ""


class Transition(NamedTuple):
    """A change of a job that must be in the store before anyone is told.

    It applies only to a job that is in `from_state` and `from_attempt`.

    Attributes:
        time: Unix seconds.
        version: The pinned model version, empty for none.
        failures: Failed attempts so far that count against the limit.
        records: Stage records to add, or to replace by (stage, attempt).
        error: Why the job ends.
    """

    job_id: str
    from_state: JobState
    from_attempt: int
    state: JobState
    stage_status: StageStatus
    attempt: int
    time: float
    version: str = ""
    failures: int = 0
    message: str = ""
    records: tuple[StageRecord, ...] = ()
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A job's success; applies only to a job that is DECODING in this very attempt."""

    job_id: str
    attempt: int
    time: float
    outputs: tuple[Output, ...]
    records: tuple[StageRecord, ...] = field(default=())


class StaleTransitionError(FailedPreconditionError):
    """The job in the store is not in the state and attempt that the change starts from."""

    default_reason = "STALE_TRANSITION"
