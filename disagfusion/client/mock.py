"""A service that is none, for tests of programs that use the SDK.

def draw(submission: Submission) -> Image.Image:
    return Image.new("RGB", (64, 64), "red")

with Client(transport=MockTransport(draw)) as client:
    my_program(client)
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import io
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from PIL import Image

from disagfusion.client.request import encode
from disagfusion.client.transport import ClientTransport
from disagfusion.client.types import (
    Job,
    JobEvent,
    JobPage,
    JobState,
    Output,
    Pipeline,
    Progress,
    Stage,
    StageStatus,
    Submission,
)
from disagfusion.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    DisagfusionError,
    InvalidArgumentError,
    JobCancelledError,
    NotFoundError,
)

if TYPE_CHECKING:
    from disagfusion.pipeline.spec import PipelineSpec

__all__ = ["MockAnswer", "MockHandler", "MockTransport"]

MockAnswer = Image.Image | bytes | Sequence[Image.Image | bytes] | DisagfusionError | None
"""Results (pictures, or files' bytes); the exception a job ends with; None to leave it queued."""

MockHandler = Callable[[Submission], MockAnswer]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_CHUNK_BYTES = 65536


def _grey(submission: Submission) -> MockAnswer:
    generation = submission.generation
    size = (generation.width or 64, generation.height or 64)
    return [Image.new("RGB", size, "grey")] * (generation.num_images_per_prompt or 1)


class MockTransport(ClientTransport):
    """Answers from a handler, in memory and without delay.

    Args:
        handler: Called with each new submission. What it returns is what becomes of the job, see
            `MockAnswer`. What it raises refuses the submission, as a service would; an
            `UnavailableError` makes the client try again. Grey pictures by default.
        spec: What `Client.pipeline` returns.

    Attributes:
        submissions: What was accepted, in order.
    """

    def __init__(
        self, handler: MockHandler | None = None, *, spec: PipelineSpec | None = None
    ) -> None:
        self.submissions: list[Submission] = []
        self._handler = handler or _grey
        self._spec = spec
        self._jobs: dict[str, Job] = {}
        self._by_request: dict[str, tuple[Submission, str]] = {}
        self._events: dict[str, list[JobEvent]] = {}
        self._contents: dict[str, list[bytes]] = {}
        self._changed = asyncio.Event()

    async def submit(self, submission: Submission) -> Job:
        """See `ClientTransport`."""
        before = self._by_request.get(submission.client_request_id)
        if before is not None:
            if before[0] != submission:
                raise AlreadyExistsError("the client request id was used for something else")
            return self._jobs[before[1]]
        answer = self._handler(submission)
        job_id = f"job-{len(self._jobs) + 1}"
        self.submissions.append(submission)
        self._by_request[submission.client_request_id] = (submission, job_id)
        asked = submission.generation
        job = Job(
            id=job_id,
            state=JobState.QUEUED,
            generation=dataclasses.replace(
                asked, images=(), seed=len(self._jobs) if asked.seed is None else asked.seed
            ),
            stage_status=StageStatus.WAITING,
            client_request_id=submission.client_request_id,
            tenant="default",
            priority=submission.priority,
            submitted_at=_EPOCH,
        )
        self._jobs[job_id] = job
        self._events[job_id] = [JobEvent(1, JobState.QUEUED, _EPOCH, StageStatus.WAITING)]
        if isinstance(answer, DisagfusionError):
            self._end(job, _state_of(answer), error=answer)
        elif answer is not None:
            self._succeed(job, answer)
        return job

    def _succeed(
        self, job: Job, answer: Image.Image | bytes | Sequence[Image.Image | bytes]
    ) -> None:
        results = [answer] if isinstance(answer, Image.Image | bytes) else answer
        contents = [encode(one) for one in results]
        self._contents[job.id] = contents
        steps = job.generation.num_inference_steps or 1
        running = StageStatus.RUNNING
        self._tell(job, JobState.ENCODING, running)
        self._tell(job, JobState.DENOISING, running)
        for step in range(1, steps + 1):
            progress = Progress(Stage.DIT, step, steps)
            self._tell(job, JobState.DENOISING, running, progress=progress, durable=False)
        self._tell(job, JobState.DECODING, running)
        outputs = tuple(_describe(index, content) for index, content in enumerate(contents))
        self._end(job, JobState.SUCCEEDED, outputs=outputs)

    def _tell(
        self,
        job: Job,
        state: JobState,
        status: StageStatus | None,
        *,
        progress: Progress | None = None,
        durable: bool = True,
        ended: Job | None = None,
    ) -> None:
        events = self._events[job.id]
        sequence = events[-1].sequence + durable
        events.append(JobEvent(sequence, state, _EPOCH, status, progress=progress, job=ended))
        self._changed.set()
        self._changed = asyncio.Event()

    def _end(
        self,
        job: Job,
        state: JobState,
        *,
        outputs: tuple[Output, ...] = (),
        error: DisagfusionError | None = None,
    ) -> Job:
        ended = dataclasses.replace(
            job,
            state=state,
            stage_status=None,
            outputs=outputs,
            started_at=_EPOCH,
            ended_at=_EPOCH,
            error=None if state is JobState.CANCELLED else error,
        )
        self._jobs[job.id] = ended
        self._tell(job, state, None, ended=ended)
        return ended

    async def get(self, job_id: str) -> Job:
        """See `ClientTransport`."""
        if job_id not in self._jobs:
            raise NotFoundError(f"there is no job {job_id}")
        return self._jobs[job_id]

    async def watch(self, job_id: str, after_sequence: int) -> AsyncGenerator[JobEvent, None]:
        """See `ClientTransport`."""
        await self.get(job_id)
        events, told = self._events[job_id], 0
        while True:
            if told == len(events):
                await self._changed.wait()
                continue
            event = events[told]
            told += 1
            if event.sequence > after_sequence:
                yield event
            if event.state.ended:
                return

    async def cancel(self, job_id: str) -> Job:
        """See `ClientTransport`."""
        job = await self.get(job_id)
        return job if job.state.ended else self._end(job, JobState.CANCELLED)

    async def list(self, page_size: int, page_token: str, states: Sequence[JobState]) -> JobPage:
        """See `ClientTransport`."""
        jobs = [job for job in self._jobs.values() if not states or job.state in states][::-1]
        begin = int(page_token or 0)
        end = begin + (page_size or 50)
        return JobPage(tuple(jobs[begin:end]), str(end) if end < len(jobs) else "")

    async def fetch(self, job_id: str, index: int, offset: int) -> AsyncGenerator[bytes, None]:
        """See `ClientTransport`."""
        await self.get(job_id)
        contents = self._contents.get(job_id, [])
        if not 0 <= index < len(contents):
            raise NotFoundError(f"job {job_id} has no output {index}")
        for begin in range(offset, len(contents[index]), _CHUNK_BYTES):
            yield contents[index][begin : begin + _CHUNK_BYTES]

    async def pipeline(self, name: str) -> Pipeline:
        """See `ClientTransport`."""
        if self._spec is None:
            raise NotFoundError("the mock was given no pipeline")
        return Pipeline(name or "mock", self._spec)

    async def close(self) -> None:
        """See `ClientTransport`."""


def _state_of(error: DisagfusionError) -> JobState:
    if isinstance(error, JobCancelledError):
        return JobState.CANCELLED
    if isinstance(error, DeadlineExceededError):
        return JobState.EXPIRED
    return JobState.FAILED


def _describe(index: int, content: bytes) -> Output:
    content_type, width, height = "video/mp4", 0, 0
    if content[4:8] != b"ftyp":
        try:
            with Image.open(io.BytesIO(content)) as picture:
                content_type = Image.MIME[picture.format or "PNG"]
                width, height = picture.size
        except OSError as error:
            raise InvalidArgumentError(
                "handler", "returned bytes of an unknown kind", expected="a picture or MP4 file"
            ) from error
    return Output(
        index=index,
        content_type=content_type,
        size_bytes=len(content),
        height=height,
        width=width,
        num_frames=1,
        sha256=hashlib.sha256(content).hexdigest(),
    )
