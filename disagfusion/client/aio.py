"""The SDK for programs that use asyncio. `Client` is the same without."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

from disagfusion.client import request
from disagfusion.client.result import GenerationResult, OutputFile
from disagfusion.client.retry import RetryPolicy
from disagfusion.client.session import Session
from disagfusion.client.transport import ClientTransport
from disagfusion.client.types import GenerationOptions, Job, JobEvent, JobState, Pipeline
from disagfusion.errors import (
    DeadlineExceededError,
    DisagfusionError,
    InternalError,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
)

if TYPE_CHECKING:
    from disagfusion.rpc.tls import TlsSettings

__all__ = ["AsyncClient", "AsyncJobHandle", "EventCallback"]

EventCallback = Callable[[JobEvent], object]
"""Called with each event while a generation is waited for."""


_ABANDON_SECONDS = 5.0


def connect(address: str | None, api_key: str | None, tls: TlsSettings | None) -> ClientTransport:
    """Return the transport of a real service.

    Raises:
        InvalidArgumentError: There is no address, or it is none.
    """
    if not address:
        raise InvalidArgumentError("address", "is missing", expected="host:port or unix:/path")
    # gRPC is imported by those who use it, not by those who bring a transport.
    from disagfusion.client.grpc_transport import GrpcTransport

    return GrpcTransport(address, api_key=api_key or "", tls=tls)


class AsyncJobHandle:
    """A job that was submitted.

    Attributes:
        job: The job as it was last seen.
    """

    def __init__(self, session: Session, job: Job) -> None:
        self._session = session
        self.job = job

    @property
    def id(self) -> str:
        """The job's identifier."""
        return self.job.id

    async def refresh(self) -> Job:
        """Ask for the job's present state and return it."""
        self.job = await self._session.call(lambda: self._session.transport.get(self.id))
        return self.job

    async def cancel(self) -> Job:
        """End the job unless it has ended, and return it."""
        self.job = await self._session.call(lambda: self._session.transport.cancel(self.id))
        return self.job

    async def events(self, after_sequence: int = 0) -> AsyncGenerator[JobEvent, None]:
        """Yield what happens to the job, to its end.

        A lost connection is made again, and the events go on after the last one that was seen.

        Args:
            after_sequence: The number of the event after which to begin; 0 for all.
        """
        async with aclosing(self._session.events(self.id, after_sequence)) as events:
            async for event in events:
                if event.job is not None:
                    self.job = event.job
                yield event

    async def result(self, on_event: EventCallback | None = None) -> GenerationResult:
        """Wait for the job's end and fetch its results.

        Args:
            on_event: Called with each event.

        Raises:
            JobFailedError: The job failed. Where the request was to blame it is an
                `InvalidArgumentError`.
            JobCancelledError: Somebody cancelled it.
            DeadlineExceededError: It did not end in the time it was given.
        """
        if not self.job.state.ended:
            async with aclosing(self.events()) as events:
                async for event in events:
                    if on_event is not None:
                        on_event(event)
            if not self.job.state.ended:
                await self.refresh()
        job = self.job
        if job.state is not JobState.SUCCEEDED:
            raise _why(job)
        files = [
            OutputFile(output, await self._session.fetch(job.id, output)) for output in job.outputs
        ]
        return GenerationResult(job, tuple(files))


def _why(job: Job) -> DisagfusionError:
    if job.error is not None:
        job.error.metadata.setdefault("job_id", job.id)
        return job.error
    facts = {"job_id": job.id}
    match job.state:
        case JobState.CANCELLED:
            return JobCancelledError(f"job {job.id} was cancelled", metadata=facts)
        case JobState.EXPIRED:
            return DeadlineExceededError(f"job {job.id} did not end in time", metadata=facts)
        case JobState.FAILED:
            return JobFailedError(f"job {job.id} failed", metadata=facts)
    return InternalError(f"job {job.id} is {job.state.name}", metadata=facts)


class AsyncClient:
    """Talks to a DisagFusion service.

        async with AsyncClient("localhost:8000") as client:
            result = await client.generate("a handwritten seven in red", seed=7)
        result.save("seven.png")

    Args:
        address: `host:port` or `unix:/path`.
        api_key: The caller's API key, where the service asks for one.
        tls: For mutual TLS.
        timeout: Seconds that a call may take, repetitions included, and for which the service may
            be away while a job is waited for. Not how long a job may take.
        transport: Something else to talk to, such as a `MockTransport`.
        retry: When failed calls are made again.

    Raises:
        InvalidArgumentError: An argument is wrong.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        api_key: str | None = None,
        tls: TlsSettings | None = None,
        timeout: float = 30.0,
        transport: ClientTransport | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._session = Session(transport or connect(address, api_key, tls), timeout, retry)

    async def generate(
        self,
        prompt: str,
        *,
        on_event: EventCallback | None = None,
        **options: Unpack[GenerationOptions],
    ) -> GenerationResult:
        """Submit a job, wait for it and fetch the results.

        A job whose waiting is cancelled is cancelled, too.

        Args:
            prompt: What to make.
            on_event: Called with each event of the job.
            **options: See `GenerationOptions`.

        Raises:
            DisagfusionError: See `submit` and `AsyncJobHandle.result`.
        """
        submission = request.build(prompt, options, _new_id)
        submitting = asyncio.ensure_future(
            self._session.call(lambda: self._session.transport.submit(submission))
        )
        try:
            handle = AsyncJobHandle(self._session, await asyncio.shield(submitting))
            return await handle.result(on_event)
        except DisagfusionError:
            raise
        except BaseException:
            await asyncio.shield(self._abandon(submitting))
            raise

    async def _abandon(self, submitting: Awaitable[Job]) -> None:
        # Without a connection the job cannot be cancelled; nobody waits for it either way.
        with contextlib.suppress(DisagfusionError, TimeoutError):
            async with asyncio.timeout(_ABANDON_SECONDS):
                job = await submitting
                await self._session.call(lambda: self._session.transport.cancel(job.id))

    async def submit(self, prompt: str, **options: Unpack[GenerationOptions]) -> AsyncJobHandle:
        """Submit a job and return at once.

        Args:
            prompt: What to make.
            **options: See `GenerationOptions`.

        Raises:
            InvalidArgumentError: The request is wrong; the exception names the field.
            AlreadyExistsError: The client request id was used for something else.
            ResourceExhaustedError: The service's queue is full.
            UnavailableError: The service cannot be reached.
        """
        submission = request.build(prompt, options, _new_id)
        job = await self._session.call(lambda: self._session.transport.submit(submission))
        return AsyncJobHandle(self._session, job)

    async def job(self, job_id: str) -> AsyncJobHandle:
        """Return a job that was submitted before, by anyone with the same API key.

        Raises:
            NotFoundError: There is no such job.
        """
        job = await self._session.call(lambda: self._session.transport.get(job_id))
        return AsyncJobHandle(self._session, job)

    async def jobs(
        self, *, states: Sequence[JobState] = (), page_size: int = 50
    ) -> AsyncGenerator[Job, None]:
        """Yield the caller's jobs, newest first.

        Args:
            states: Only jobs in these; all if empty.
            page_size: How many are asked for at a time.
        """
        token = ""
        while True:
            page = await self._session.call(
                partial(self._session.transport.list, page_size, token, states)
            )
            for job in page.jobs:
                yield job
            token = page.next_page_token
            if not token:
                return

    async def pipeline(self, name: str = "") -> Pipeline:
        """Describe a pipeline: its workflows, inputs, defaults and limits.

        Args:
            name: Its name; may be empty where one is served.
        """
        return await self._session.call(lambda: self._session.transport.pipeline(name))

    async def close(self) -> None:
        """Let go of the connection. Jobs run on."""
        await self._session.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()


def _new_id() -> str:
    return uuid.uuid4().hex
