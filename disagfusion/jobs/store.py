"""The port behind which jobs are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from disagfusion.jobs.model import (
    Completion,
    InputImage,
    Job,
    JobEvent,
    JobState,
    NewJob,
    Transition,
)


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submission.

    Attributes:
        job: The job in the store.
        created: False when the same client request id had been submitted before.
    """

    job: Job
    created: bool


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of a listing; `next_page_token` is empty on the last one."""

    jobs: tuple[Job, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class EndedJob:
    """What retention has to know of a job that has ended.

    Attributes:
        input_bytes: Bytes of request and images in the store.
        result_bytes: Bytes of results that are still stored.
        events: Number of stored events.
    """

    job_id: str
    ended_at: float
    input_bytes: int
    result_bytes: int
    events: int


class JobStore(ABC):
    """Jobs, their events, stage records and outputs; use as an asynchronous context manager.

    Every method that changes something returns after the change is durable. Changes are applied
    in the order in which the methods were called, so several may be awaited together.
    """

    @abstractmethod
    async def open(self) -> None:
        """Open the store and bring its schema up to date.

        Raises:
            FailedPreconditionError: The store was written by a newer version.
            UnavailableError: It cannot be opened; the message says why.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Finish what is under way and close."""

    @abstractmethod
    async def submit(self, job: NewJob) -> Submission:
        """Store a job QUEUED in attempt 1, with its first event.

        Raises:
            AlreadyExistsError: The tenant used the client request id with another fingerprint.
            ResourceExhaustedError: The disk is full.
            InvalidArgumentError: The job id is malformed or the images are too large.
        """

    @abstractmethod
    async def repeated(self, job: NewJob) -> Job | None:
        """Return the job that was submitted before with the same client request id, if any.

        Raises:
            AlreadyExistsError: That job had another fingerprint.
        """

    @abstractmethod
    async def transition(self, transition: Transition) -> JobEvent:
        """Apply a change. While the disk is full this waits.

        Raises:
            StaleTransitionError: The job is not in the state and attempt it starts from.
            NotFoundError: There is no such job.
        """

    @abstractmethod
    async def complete(self, completion: Completion) -> JobEvent:
        """Make a job SUCCEEDED, in one transaction that checks its attempt. Waits on a full disk.

        Raises:
            StaleTransitionError: The job is not DECODING in this attempt.
            NotFoundError: There is no such job.
        """

    @abstractmethod
    async def get(self, job_id: str, *, tenant: str) -> Job:
        """Return a tenant's job.

        Raises:
            NotFoundError: The tenant has no such job.
        """

    @abstractmethod
    async def load(self, job_id: str) -> Job:
        """Return a job whoever's it is, for the gateway's own use.

        Raises:
            NotFoundError: There is no such job.
        """

    @abstractmethod
    async def images(self, job_id: str) -> tuple[InputImage, ...]:
        """Return a job's input images; empty for a job that has ended or has none."""

    @abstractmethod
    async def events(
        self, job_id: str, *, tenant: str, after_sequence: int = 0, limit: int = 1000
    ) -> Sequence[JobEvent]:
        """Return the events of a tenant's job after a sequence number, in order.

        Raises:
            NotFoundError: The tenant has no such job.
        """

    @abstractmethod
    async def list_jobs(
        self,
        *,
        tenant: str,
        page_size: int = 50,
        page_token: str = "",
        states: Collection[JobState] = (),
    ) -> JobPage:
        """List a tenant's jobs, newest first.

        Raises:
            InvalidArgumentError: `page_token` is not one of this listing's, or `page_size` is
                not in 1 to 1000.
        """

    @abstractmethod
    async def unfinished(self) -> Sequence[Job]:
        """Return all jobs that have not ended, in the order in which they were submitted."""

    @abstractmethod
    async def ended(self) -> Sequence[EndedJob]:
        """Return what retention has to know of all jobs that have ended, oldest end first."""

    @abstractmethod
    async def result_keys(self) -> frozenset[tuple[str, int, int]]:
        """Return (job id, attempt, index) of every output whose bytes should be stored."""

    @abstractmethod
    async def forget_results(self, job_ids: Collection[str]) -> None:
        """Note that the bytes of these jobs' outputs are removed. Ended jobs only."""

    @abstractmethod
    async def delete_events(self, job_ids: Collection[str]) -> None:
        """Remove all events but the last of these jobs. Ended jobs only."""

    @abstractmethod
    async def delete_jobs(self, job_ids: Collection[str]) -> None:
        """Remove these jobs and all that belongs to them. Ended jobs only."""

    async def __aenter__(self) -> JobStore:
        """Open."""
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close."""
        await self.aclose()
