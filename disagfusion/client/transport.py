"""What the SDK needs of a service, in the SDK's own terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence

from disagfusion.client.types import Job, JobEvent, JobPage, JobState, Pipeline, Submission


class ClientTransport(ABC):
    """One try of each call; repeating is the client's business.

    Every method raises exceptions of `disagfusion.errors`: `UnavailableError` where the same call
    is worth repeating.
    """

    @abstractmethod
    async def submit(self, submission: Submission) -> Job:
        """Hand in a job and return it as accepted."""

    @abstractmethod
    async def get(self, job_id: str) -> Job:
        """Return a job."""

    @abstractmethod
    def watch(self, job_id: str, after_sequence: int) -> AsyncGenerator[JobEvent, None]:
        """Yield the events after a sequence number, the last one with the whole job."""

    @abstractmethod
    async def cancel(self, job_id: str) -> Job:
        """End a job unless it has ended, and return it."""

    @abstractmethod
    async def list(self, page_size: int, page_token: str, states: Sequence[JobState]) -> JobPage:
        """Return some jobs, newest first."""

    @abstractmethod
    def fetch(self, job_id: str, index: int, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of an encoded output from an offset on."""

    @abstractmethod
    async def pipeline(self, name: str) -> Pipeline:
        """Describe a pipeline; the only one if the name is empty."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the connection."""
