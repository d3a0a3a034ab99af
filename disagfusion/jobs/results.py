"""The port behind which encoded results are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Collection
from dataclasses import dataclass

from disagfusion.errors import UnavailableError
from disagfusion.jobs.model import Output


class ResultStorageError(UnavailableError):
    """The place does not work now, such as a network volume that is away: worth trying again."""

    default_reason = "RESULT_STORAGE"


@dataclass(frozen=True, slots=True, order=True)
class ResultKey:
    """Names one encoded result: an output of the attempt in which it was decoded."""

    job_id: str
    attempt: int
    index: int


class ResultStore(ABC):
    """Encoded pictures and videos by key; use as an asynchronous context manager.

    Every method but `aclose` raises `ResultStorageError` where the place does not work.
    """

    @abstractmethod
    async def open(self) -> None:
        """Make ready.

        Raises:
            ResultStorageError: The place cannot be used; the message says why.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close."""

    @abstractmethod
    async def write(self, key: ResultKey, output: Output, chunks: AsyncIterable[bytes]) -> None:
        """Store one result durably; all of it or nothing. Writing the same key again is allowed.

        Args:
            key: Its name.
            output: What the decoder announced; size and SHA-256 are verified.
            chunks: The bytes, in order.

        Raises:
            DataLossError: The bytes are not those that were announced.
            ResourceExhaustedError: The disk is full; worth trying again.
        """

    @abstractmethod
    def read(
        self, key: ResultKey, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Read a result, or a range of it, in chunks.

        Args:
            key: Its name.
            offset: First byte.
            length: Number of bytes, all that follow where None.

        Raises:
            NotFoundError: There is none, on the first iteration.
            InvalidArgumentError: The offset is negative or past the end, on the first iteration.
        """

    @abstractmethod
    async def delete(self, keys: Collection[ResultKey]) -> None:
        """Remove results; those that are not there are ignored."""

    @abstractmethod
    async def discard(self, job_id: str, attempt: int) -> None:
        """Remove whatever one attempt of a job has stored."""

    @abstractmethod
    async def clean(
        self,
        keep: Collection[ResultKey],
        *,
        before: float,
        keep_jobs: Collection[str] = (),
    ) -> int:
        """Remove what a crash has left: unfinished writes and results that nothing names.

        Args:
            keep: The results that are named by the job store.
            keep_jobs: Jobs of which all results are kept.
            before: Unix seconds; what was written later is left alone.

        Returns:
            The number of files removed.
        """

    @abstractmethod
    async def free_bytes(self) -> int:
        """Return how much may still be written, in bytes, above the floor that is kept free."""

    async def __aenter__(self) -> ResultStore:
        """Open."""
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close."""
        await self.aclose()
