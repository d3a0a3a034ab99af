"""The public API."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from disagfusion.dispatch import events
from disagfusion.dispatch.actions import Publish
from disagfusion.dispatch.settings import AdmissionLimits, admit
from disagfusion.errors import (
    DisagfusionError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion.jobs.fingerprint import fingerprint
from disagfusion.jobs.model import InputImage, Job, JobEvent, JobState, NewJob
from disagfusion.jobs.results import ResultKey, ResultStore
from disagfusion.jobs.store import JobStore
from disagfusion.rpc.auth import current_tenant
from disagfusion.telemetry.tracing import new_traceparent
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1.generation_pb2_grpc import GenerationServiceServicer
from disagfusion_gateway import validation
from disagfusion_gateway.admission import Admission
from disagfusion_gateway.core import Core
from disagfusion_gateway.job_messages import event_message, job_message, timestamp
from disagfusion_gateway.observe import Observer
from disagfusion_gateway.peering import Peering
from disagfusion_gateway.sessions import Sessions
from disagfusion_gateway.watchers import Watchers

_DEFAULT_PAGE = 50
_EVENTS = 1000
_CANCEL_SECONDS = 10.0
# Of seeds that are chosen here: short enough to be copied by hand.
_SEED_BITS = 32


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How the public API behaves.

    Attributes:
        pipeline: The name of the pipeline that is served.
        admission: How much may be accepted.
        images: Bounds of input images.
        max_timeout: Of a job, in seconds.
        spec_wait: Seconds that a submission waits for the first worker that has loaded.
        disk_reserve: Bytes that must be free for results when a job is accepted.
    """

    pipeline: str
    admission: AdmissionLimits
    images: validation.ImageLimits
    max_timeout: float
    spec_wait: float
    disk_reserve: int


class GenerationServicer(GenerationServiceServicer):
    """Serves `disagfusion.v1.GenerationService`; every caller sees its own tenant's jobs only.

    Args:
        settings: How it behaves.
        core: Takes new jobs.
        store: Where jobs are read.
        results: Where results are read.
        sessions: Know the pipeline's specification.
        watchers: Know what happens to jobs.
        observer: Counts.
        peering: The other gateways, where there are any.
        admission: Decides whether new jobs are taken.
        clock: Unix seconds.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        core: Core,
        store: JobStore,
        results: ResultStore,
        sessions: Sessions,
        watchers: Watchers,
        observer: Observer,
        peering: Peering | None = None,
        admission: Admission | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._core = core
        self._store = store
        self._results = results
        self._sessions = sessions
        self._watchers = watchers
        self._observer = observer
        self._peering = peering
        self._admission = admission or Admission()
        self._clock = clock
        self._stopping = False

    def stop(self) -> None:
        """Accept no more jobs and end every watch."""
        self._stopping = True
        self._watchers.close()

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Any) -> pb.SubmitJobResponse:
        """Judge, admit and store a job."""
        metadata = dict(context.invocation_metadata() or ())
        try:
            job = await self._submit(request, str(metadata.get("traceparent", "")))
        except DisagfusionError as error:
            self._observer.refused(error.reason)
            raise
        return pb.SubmitJobResponse(job=job_message(job))

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        """Return a job."""
        return pb.GetJobResponse(job=job_message(await self._job(request.job_id)))

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Any
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """Stream what has happened to a job and what happens next, until it ends."""
        job_id, last = request.job_id, request.after_sequence
        validation.check_job_id(job_id)
        ended, place = False, None
        with self._watchers.watching(job_id) as watcher:
            stored = await self._events(job_id, last) if last >= 0 else ()
            if not stored:
                job = await self._job(job_id)
                if not 0 <= last <= job.sequence:
                    raise InvalidArgumentError(
                        "after_sequence", f"is {last}", expected=f"0 to {job.sequence}"
                    )
                ended, place = job.state.ended and last == job.sequence, _place(job)
            while True:
                for event in stored:
                    yield pb.WatchJobResponse(event=await self._message(event))
                    last, ended, place = event.sequence, event.state.ended, _place(event)
                if ended:
                    return
                stored = ()
                news = await watcher.next_event()
                if news is None:
                    raise _going_away()
                if isinstance(news, Publish):
                    # What was buffered while the store was read may be of an earlier stage.
                    if _place(news) == place:
                        yield pb.WatchJobResponse(event=self._progress(news, last))
                elif news.sequence == last + 1:
                    stored = (news,)
                elif news.sequence > last:
                    # The buffer overflowed: what is missing is in the store.
                    stored = await self._events(job_id, last)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        """End a job, unless it has ended; answers once that is durable."""
        validation.check_job_id(request.job_id)
        with self._watchers.watching(request.job_id) as watcher:
            job = await self._job(request.job_id)
            if not job.state.ended:
                if self._peering is not None and not self._core.knows(job.job_id):
                    await self._peering.cancel(job.job_id)
                else:
                    self._core.post(events.CancelRequested(job.job_id, "cancelled by the client"))
                try:
                    async with asyncio.timeout(_CANCEL_SECONDS):
                        while (event := await watcher.next_event()) is not None:
                            if event.state.ended:
                                break
                except TimeoutError:
                    raise UnavailableError("the job has not ended yet", retry_after=1.0) from None
                job = await self._job(request.job_id)
        return pb.CancelJobResponse(job=job_message(job))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """List the tenant's jobs, newest first."""
        states = []
        for number in request.states:
            if number not in {int(state) for state in JobState}:
                raise InvalidArgumentError("states", f"has {number}", expected="job states")
            states.append(JobState(number))
        page = await self._store.list_jobs(
            tenant=current_tenant(),
            page_size=request.page_size or _DEFAULT_PAGE,
            page_token=request.page_token,
            states=states,
        )
        return pb.ListJobsResponse(
            jobs=[job_message(job) for job in page.jobs], next_page_token=page.next_page_token
        )

    async def FetchOutput(
        self, request: pb.FetchOutputRequest, context: Any
    ) -> AsyncIterator[pb.FetchOutputResponse]:
        """Stream an encoded output."""
        job = await self._job(request.job_id)
        if job.state is not JobState.SUCCEEDED:
            raise FailedPreconditionError(
                f"the job is {job.state.name}, it has no outputs", reason="NO_OUTPUTS"
            )
        output = next((o for o in job.outputs if o.index == request.index), None)
        if output is None:
            raise NotFoundError(f"the job has no output {request.index}", reason="NO_SUCH_OUTPUT")
        if not output.stored:
            raise NotFoundError("the output is no longer kept", reason="OUTPUT_EXPIRED")
        key = ResultKey(job.job_id, job.attempt, output.index)
        async for chunk in self._results.read(key, offset=request.offset):
            yield pb.FetchOutputResponse(chunk=chunk)

    async def GetPipeline(
        self, request: pb.GetPipelineRequest, context: Any
    ) -> pb.GetPipelineResponse:
        """Describe the pipeline."""
        self._check_pipeline(request.pipeline)
        spec = await self._sessions.spec(self._settings.spec_wait)
        return pb.GetPipelineResponse(pipeline=self._settings.pipeline, spec_json=spec.to_json())

    async def _submit(self, request: pb.SubmitJobRequest, parent: str) -> Job:
        if self._stopping:
            raise _going_away()
        self._check_pipeline(request.pipeline)
        validation.check_envelope(request, max_timeout=self._settings.max_timeout)
        spec = await self._sessions.spec(self._settings.spec_wait)
        asked = await validation.check_generation(request.generation, spec, self._settings.images)
        values = spec.complete(asked)
        tenant = current_tenant()
        now = self._clock()
        seconds = request.timeout.seconds + request.timeout.nanos / 1e9
        steps = values.get("num_inference_steps", spec.defaults.get("num_inference_steps", 0))
        generation, images = _without_images(request.generation)
        new = NewJob(
            job_id=uuid4().hex,
            tenant=tenant,
            pipeline=self._settings.pipeline,
            generation=generation.SerializeToString(),
            images=images,
            fingerprint=_fingerprint(request, asked, tenant),
            submitted_at=now,
            client_request_id=request.client_request_id,
            priority=request.priority,
            deadline=now + seconds if request.HasField("timeout") else None,
            cost_key=validation.cost_key(values, spec),
            num_inference_steps=int(steps),
            traceparent=new_traceparent(parent),
        )
        try:
            self._admission.check()
            await self._admit(tenant)
        except (FailedPreconditionError, ResourceExhaustedError):
            # Whoever repeats a submission asks for nothing new.
            known = await self._store.repeated(new) if new.client_request_id else None
            if known is None:
                raise
            return known
        submission = await self._core.submit(new, parent=parent)
        return submission.job

    async def _admit(self, tenant: str) -> None:
        if await self._results.free_bytes() < self._settings.disk_reserve:
            raise ResourceExhaustedError(
                "the disk for results is full", reason="DISK_FULL", retry_after=30.0
            )
        load = self._core.load(tenant)
        if self._peering is not None:
            count = load.unfinished_of_tenant + self._peering.unfinished_elsewhere(tenant)
            load = dataclasses.replace(load, unfinished_of_tenant=count)
        admit(load, self._settings.admission, tenant=tenant)

    def _check_pipeline(self, name: str) -> None:
        if name not in ("", self._settings.pipeline):
            raise NotFoundError(
                f"the pipeline {name[:80]!r} is not served here", reason="NO_SUCH_PIPELINE"
            )

    async def _job(self, job_id: str) -> Job:
        validation.check_job_id(job_id)
        return await self._store.get(job_id, tenant=current_tenant())

    async def _events(self, job_id: str, after: int) -> Sequence[JobEvent]:
        found: list[JobEvent] = []
        while True:
            page = await self._store.events(
                job_id, tenant=current_tenant(), after_sequence=after, limit=_EVENTS
            )
            found.extend(page)
            if len(page) < _EVENTS:
                return found
            after = page[-1].sequence

    async def _message(self, event: JobEvent) -> pb.JobEvent:
        message = event_message(event)
        if event.state.ended:
            message.job.CopyFrom(job_message(await self._job(event.job_id)))
        return message

    def _progress(self, event: Publish, sequence: int) -> pb.JobEvent:
        progress = event.progress
        return pb.JobEvent(
            sequence=sequence,
            time=timestamp(self._clock()),
            state=pb.JobState.ValueType(int(event.state)),
            stage_status=pb.StageStatus.ValueType(int(event.stage_status)),
            attempt=event.attempt,
            progress=pb.Progress(
                stage=pb.Stage.ValueType(int(progress.stage)),
                step=progress.step,
                num_inference_steps=progress.num_inference_steps,
            ),
        )


def _place(event: Job | JobEvent | Publish) -> tuple[JobState, int]:
    return event.state, event.attempt


def _going_away() -> UnavailableError:
    return UnavailableError(
        "the gateway is going away; jobs go on", reason="SHUTTING_DOWN", retry_after=1.0
    )


def _fingerprint(request: pb.SubmitJobRequest, asked: dict[str, Any], tenant: str) -> str:
    """Return the digest of what the client itself has set, but for the client request id."""
    return fingerprint(
        {
            "tenant": tenant,
            "pipeline": request.pipeline,
            "priority": request.priority,
            "timeout": request.timeout.ToNanoseconds() if request.HasField("timeout") else None,
            "output_format": int(request.generation.output_format),
            "generation": asked,
            "adapters": [],
        }
    )


def _without_images(asked: pb.Generation) -> tuple[pb.Generation, tuple[InputImage, ...]]:
    """Return a request with a seed and without its images, and the images."""
    images = tuple(InputImage(image.name or "image", image.content) for image in asked.images)
    generation = pb.Generation()
    generation.CopyFrom(asked)
    generation.ClearField("images")
    if not generation.HasField("seed"):
        generation.seed = secrets.randbits(_SEED_BITS)
    return generation, images
