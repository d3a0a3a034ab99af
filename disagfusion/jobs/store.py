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

DAY_SECONDS = 86400.0


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
class RetentionPolicy:
    """How long what is kept of jobs that have ended, and how much of it; None for no bound.

    Attributes:
        job_seconds: After its end a job is removed with all that belongs to it.
        event_seconds: After its end a job's events are removed, all but the last.
        result_seconds: After its end a job's results are removed.
        result_bytes: Bound on all results; the oldest go first.
        job_bytes: Bound on what jobs and events take in the store, estimated; oldest first.
    """

    job_seconds: float | None = 7 * DAY_SECONDS
    event_seconds: float | None = 2 * DAY_SECONDS
    result_seconds: float | None = 2 * DAY_SECONDS
    result_bytes: int | None = 10 * 1024**3
    job_bytes: int | None = 1024**3


@dataclass(frozen=True, slots=True)
class Expired:
    """What to remove: ids of ended jobs, oldest first.

    Attributes:
        jobs: These go with all that belongs to them.
        results: Jobs not among those whose results go.
        events: Jobs not among those whose events go, all but the last.
    """

    jobs: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


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
    async def expired(self, policy: RetentionPolicy, now: float, limit: int) -> Expired:
        """Return what goes by a policy, the oldest first, at most so many jobs of each kind.

        Args:
            policy: The bounds.
            now: Unix seconds.
            limit: Asked again after the removal, the next ones follow.
        """

    @abstractmethod
    async def result_bytes(self) -> int:
        """Return the bytes of all results that should be stored."""

    @abstractmethod
    async def result_keys(
        self, job_ids: Collection[str] | None = None
    ) -> frozenset[tuple[str, int, int]]:
        """Return (job id, attempt, index) of every output whose bytes should be stored.

        Args:
            job_ids: Only of these jobs.
        """

    @abstractmethod
    async def forget_results(self, job_ids: Collection[str]) -> None:
        """Note that the bytes of these jobs' outputs are removed. Ended jobs only."""

    @abstractmethod
    async def delete_events(self, job_ids: Collection[str]) -> None:
        """Remove all events but the last of these jobs. Ended jobs only."""

    @abstractmethod
    async def delete_jobs(self, job_ids: Collection[str]) -> None:
        """Remove these jobs and all that belongs to them. Ended jobs only."""

    @abstractmethod
    async def put_specification(self, pipeline: str, specification: str) -> None:
        """Keep what a pipeline accepts, in the place of what was kept before."""

    @abstractmethod
    async def specification(self, pipeline: str) -> str:
        """Return what was kept last of a pipeline; empty where nothing was."""

    async def __aenter__(self) -> JobStore:
        """Open."""
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close."""
        await self.aclose()
