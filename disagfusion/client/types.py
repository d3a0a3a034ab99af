"""What the SDK takes and returns. Plain values; times are aware datetimes in UTC."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from PIL import Image

from disagfusion.errors import DisagfusionError
from disagfusion.pipeline.stages import Stage

if TYPE_CHECKING:
    from disagfusion.pipeline.spec import PipelineSpec

__all__ = [
    "Generation",
    "GenerationOptions",
    "ImageInput",
    "InputImage",
    "Job",
    "JobEvent",
    "JobPage",
    "JobState",
    "Output",
    "OutputFormat",
    "ParameterValue",
    "Pipeline",
    "Progress",
    "Stage",
    "StageRecord",
    "StageStatus",
    "Submission",
]

ImageInput = Image.Image | Path | str | bytes
"""A picture: opened, a path, or the bytes of a PNG, JPEG or WebP file."""

ParameterValue = bool | int | float | str | Sequence["ParameterValue"]
"""What a parameter may be."""


class OutputFormat(enum.StrEnum):
    """How results are encoded."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    MP4 = "mp4"


class JobState(enum.StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    ENCODING = "ENCODING"
    DENOISING = "DENOISING"
    DECODING = "DECODING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self in (self.SUCCEEDED, self.FAILED, self.CANCELLED, self.EXPIRED)


class StageStatus(enum.StrEnum):
    """What a job does in its current stage."""

    WAITING = "WAITING"
    TRANSFERRING = "TRANSFERRING"
    RUNNING = "RUNNING"


class GenerationOptions(TypedDict, total=False):
    """Keyword arguments of `generate` and `submit`; what is left out is the pipeline's default.

    Attributes:
        negative_prompt: What the result should not look like.
        image: One input picture, or several; selects image-to-image or image-to-video.
        height: Pixels.
        width: Pixels.
        num_frames: Length of a video.
        num_inference_steps: Denoising steps.
        guidance_scale: How closely the result follows the prompt.
        seed: 0 to 2⁶⁴ − 1; the same seed gives the same result. Chosen by the service if left out.
        num_images_per_prompt: How many results.
        output_format: "png" (default of pictures), "jpeg", "webp" or "mp4" (default of videos).
        timeout: Seconds after which the service gives the job up (EXPIRED).
        priority: −100 to 100, higher runs first; 0 is the default.
        client_request_id: At most 128 characters. The same id with the same content is the same
            job, however often it is submitted. Generated if left out.
        pipeline: Its name, where several are served.
        parameters: Whatever else the pipeline takes, by diffusers' name. Pictures among the
            values (opened, `Path` or bytes) are inputs such as "mask_image". Keyword arguments
            that are not listed here are taken as parameters, too.
    """

    negative_prompt: str | None
    image: ImageInput | Sequence[ImageInput] | None
    height: int | None
    width: int | None
    num_frames: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    seed: int | None
    num_images_per_prompt: int | None
    output_format: OutputFormat | str | None
    timeout: float | None
    priority: int
    client_request_id: str | None
    pipeline: str
    parameters: Mapping[str, ParameterValue | ImageInput]


@dataclass(frozen=True, slots=True)
class InputImage:
    """An encoded image and the pipeline input it is meant for, such as "image"."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Generation:
    """What is asked of the model. None is the pipeline's default.

    Attributes:
        images: Encoded input images, each with the name of the input it is meant for.
        parameters: Whatever else the pipeline takes, by diffusers' name.

    The others are described in `GenerationOptions`.
    """

    prompt: str
    negative_prompt: str | None = None
    images: tuple[InputImage, ...] = ()
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    num_images_per_prompt: int | None = None
    output_format: OutputFormat | None = None
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submission:
    """A generation and how the service shall treat it; see `GenerationOptions`."""

    generation: Generation
    client_request_id: str
    priority: int = 0
    timeout: float | None = None
    pipeline: str = ""


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
    """

    index: int
    content_type: str
    size_bytes: int
    height: int
    width: int
    num_frames: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Denoising steps of the current attempt.

    Attributes:
        stage: The stage that runs.
        step: Steps that are done.
        num_inference_steps: Steps in all.
    """

    stage: Stage
    step: int
    num_inference_steps: int


@dataclass(frozen=True, slots=True)
class StageRecord:
    """Where and how one stage of one attempt ran.

    Attributes:
        stage: The stage.
        attempt: The attempt, from 1.
        worker: The stage service's name.
        pid: Process that computed.
        device: Such as "cpu" or "cuda:0".
        threads: Threads of its CPU operations.
        queue_seconds: Until it began to compute.
        compute_seconds: Of computing.
        receive_seconds: Until its input was there, from when it began to arrive.
        send_seconds: Until its output was acknowledged.
        bytes_out: What left it: tensors, or encoded results.
        transport: What carried its output, such as "ucx/shm"; empty for the decoder.
        steps: Denoising steps that ran.
        outcome: "done", or why it ended otherwise.
    """

    stage: Stage
    attempt: int
    worker: str = ""
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
class Job:
    """A generation and what became of it.

    Attributes:
        id: The job's identifier.
        state: Where it stands.
        stage_status: What it does in its current stage; None once it has ended.
        attempt: From 1; grows each time a stage has to be done again.
        progress: Denoising steps of the current attempt, if it has come so far.
        generation: What was asked for, without the images; `seed` is set.
        client_request_id: As submitted.
        tenant: Whose it is.
        priority: As submitted.
        submitted_at: When it was accepted.
        started_at: When its first stage was given to a worker.
        ended_at: When it ended.
        deadline: When it expires.
        outputs: The results, once it has succeeded.
        error: Why it failed or expired.
        stages: Where and how each stage of each attempt ran.
        accelerator_seconds: Seconds of computing, all attempts.
    """

    id: str
    state: JobState
    generation: Generation
    attempt: int = 1
    stage_status: StageStatus | None = None
    progress: Progress | None = None
    client_request_id: str = ""
    tenant: str = ""
    priority: int = 0
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline: datetime | None = None
    outputs: tuple[Output, ...] = ()
    error: DisagfusionError | None = None
    stages: tuple[StageRecord, ...] = ()
    accelerator_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One step in a job's life.

    Attributes:
        sequence: Durable events are numbered from 1; per-step progress repeats the last number.
        state: The job's state.
        time: When.
        stage_status: What it does in its current stage; None once it has ended.
        attempt: Which attempt.
        progress: Denoising steps.
        message: For people: why, where the state alone does not say it.
        job: The whole job, in the last event only.
    """

    sequence: int
    state: JobState
    time: datetime | None = None
    stage_status: StageStatus | None = None
    attempt: int = 1
    progress: Progress | None = None
    message: str = ""
    job: Job | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some of the jobs, newest first.

    Attributes:
        jobs: The jobs.
        next_page_token: What gets the next page; empty after the last.
    """

    jobs: tuple[Job, ...]
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline that is served.

    Attributes:
        name: Its name.
        spec: Its workflows, inputs, defaults and limits.
    """

    name: str
    spec: PipelineSpec
