"""Results in a directory: one file each, there completely or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import math
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Generator
from pathlib import Path
from typing import ParamSpec, TypeVar

from disagfusion import failpoints
from disagfusion.errors import (
    DataLossError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from disagfusion.jobs.model import Output
from disagfusion.jobs.results import ResultKey, ResultStorageError, ResultStore
from disagfusion.telemetry.logging import get_logger

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK_BYTES = 1024 * 1024
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"(?P<job>[A-Za-z0-9_-]{1,64})\.(?P<attempt>\d+)\.(?P<index>\d+)")
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_log = get_logger(__name__)


class DirectoryResultStore(ResultStore):
    """Results as files `<root>/<two hexadecimal digits>/<job id>.<attempt>.<index>`.

    A result is written to `<root>/tmp`, synchronized, renamed, and its directory synchronized:
    once `write` has returned it survives a loss of power, and before it is not to be seen.

    Args:
        root: The directory; created where it does not exist.
        min_free_bytes: Free space of the disk that is never used.
        free_bytes: Says how much is free at a path.
    """

    def __init__(
        self,
        root: Path,
        *,
        min_free_bytes: int = 16 * 1024 * 1024,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        # Paths of results are strings: pathlib interns each name, in a table that only grows.
        self._root = root
        self._temporary = root / "tmp"
        self._min_free_bytes = min_free_bytes
        self._free_bytes = free_bytes or _free_bytes

    async def open(self) -> None:
        """Create the directories and see whether they can be written."""
        with _working(f"results cannot be stored in {self._root}"):
            await asyncio.to_thread(self._prepare)

    async def aclose(self) -> None:
        """Close."""

    async def write(self, key: ResultKey, output: Output, chunks: AsyncIterable[bytes]) -> None:
        """Store one result durably; all of it or nothing."""
        target = self._path(key)
        if await self.free_bytes() < output.size_bytes:
            raise _no_room(f"a result cannot be stored in {self._root}")
        name = f"{os.path.basename(target)}.{secrets.token_hex(8)}"
        temporary = os.path.join(self._temporary, name)
        try:
            with _working(f"a result cannot be stored in {self._root}"), _create(temporary) as file:
                await _receive(file, output, chunks)
                await _in_thread(self._publish, file, temporary, target)
        finally:
            _tidy(temporary)

    async def read(
        self, key: ResultKey, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Read a result, or a range of it, in chunks of at most 1 MiB."""
        path = self._path(key)
        what = f"output {key.index} of job {key.job_id}"
        with _working(f"{what} cannot be read"):
            try:
                file = _open(path)
            except FileNotFoundError as error:
                raise NotFoundError(f"{what} is not stored") from error
        with _working(f"{what} cannot be read"), file:
            size = os.fstat(file.fileno()).st_size
            if not 0 <= offset <= size or (length is not None and length < 0):
                raise InvalidArgumentError(
                    "offset", f"{offset} is out of range", expected=f"0 to {size}"
                )
            left = size - offset if length is None else min(length, size - offset)
            file.seek(offset)
            while left > 0:
                chunk = await _in_thread(file.read, min(left, _CHUNK_BYTES))
                if not chunk:
                    raise DataLossError(f"{what} is truncated")
                left -= len(chunk)
                yield chunk

    async def delete(self, keys: Collection[ResultKey]) -> None:
        """Remove results; those that are not there are ignored."""
        paths = [self._path(key) for key in keys]
        with _working("results cannot be removed"):
            await asyncio.to_thread(_unlink_all, paths)

    async def discard(self, job_id: str, attempt: int) -> None:
        """Remove whatever one attempt of a job has stored."""
        directory = os.path.dirname(self._path(ResultKey(job_id, attempt, 0)))
        prefix = f"{job_id}.{attempt}."

        def remove() -> None:
            if os.path.isdir(directory):
                names = [name for name in os.listdir(directory) if name.startswith(prefix)]
                _unlink_all([os.path.join(directory, name) for name in names])

        with _working(f"what attempt {attempt} of job {job_id} stored cannot be removed"):
            await asyncio.to_thread(remove)

    async def clean(
        self,
        keep: Collection[ResultKey],
        *,
        before: float,
        keep_jobs: Collection[str] = (),
    ) -> int:
        """Remove what a crash has left."""
        with _working(f"{self._root} cannot be cleaned"):
            keys, jobs = frozenset(keep), frozenset(keep_jobs)
            return await asyncio.to_thread(self._clean, keys, jobs, before)

    async def free_bytes(self) -> int:
        """Return how much may still be written, in bytes."""
        with _working(f"nobody knows how much is free in {self._root}"):
            free = await asyncio.to_thread(self._free_bytes, self._root)
        return max(0, free - self._min_free_bytes)

    def _prepare(self) -> None:
        self._temporary.mkdir(parents=True, exist_ok=True)
        for number in range(256):
            (self._root / f"{number:02x}").mkdir(exist_ok=True)
        _sync_directory(self._root)
        probe = self._temporary / f"probe.{secrets.token_hex(8)}"
        probe.touch(exist_ok=False)
        probe.unlink()

    def _path(self, key: ResultKey) -> str:
        if not _JOB_ID.fullmatch(key.job_id):
            raise InvalidArgumentError("job_id", f"{key.job_id!r} is malformed")
        shard = hashlib.sha256(key.job_id.encode()).hexdigest()[:2]
        return os.path.join(self._root, shard, f"{key.job_id}.{key.attempt}.{key.index}")

    def _publish(self, file: io.FileIO, temporary: str, target: str) -> None:
        failpoints.reach("results.fsync.before")
        os.fsync(file.fileno())
        failpoints.reach("results.rename.before")
        os.replace(temporary, target)
        failpoints.reach("results.rename.after")
        _sync_directory(os.path.dirname(target))
        failpoints.reach("results.sync.after")

    def _clean(self, keep: frozenset[ResultKey], keep_jobs: frozenset[str], before: float) -> int:
        leftovers = list(self._temporary.iterdir())
        for number in range(256):
            for path in (self._root / f"{number:02x}").iterdir():
                match = _NAME.fullmatch(path.name)
                # What is not ours is left alone.
                if match is not None:
                    key = ResultKey(match["job"], int(match["attempt"]), int(match["index"]))
                    if key not in keep and key.job_id not in keep_jobs:
                        leftovers.append(path)
        old = [path for path in leftovers if _written(path) < before]
        _unlink_all(old)
        return len(old)


async def _receive(file: io.FileIO, output: Output, chunks: AsyncIterable[bytes]) -> None:
    """Write the chunks and compare them with what was announced."""
    digest = hashlib.sha256()
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > output.size_bytes:
            break
        digest.update(chunk)
        await _in_thread(_write_all, file, chunk)
    if size != output.size_bytes:
        raise DataLossError(
            f"output {output.index} has {'more than ' if size > output.size_bytes else ''}"
            f"{min(size, output.size_bytes)} bytes where {output.size_bytes} were announced"
        )
    if digest.hexdigest() != output.sha256:
        raise DataLossError(f"output {output.index} does not have the SHA-256 that was announced")


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread; even when cancelled, return only once the thread is done with the file."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # Closing a file under a thread that uses it could hit whatever gets its number next.
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise


def _written(path: Path) -> float:
    """Return when a file was written; one that is gone is not old."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _create(path: str) -> io.FileIO:
    return io.FileIO(path, "xb")


def _open(path: str) -> io.FileIO:
    return io.FileIO(path, "rb")


def _write_all(file: io.FileIO, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def _unlink_all(paths: Collection[str | Path]) -> None:
    """Remove files, as many as can be.

    Raises:
        OSError: The first that cannot.
    """
    problem: OSError | None = None
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            problem = problem or error
    if problem is not None:
        raise problem


def _tidy(temporary: str) -> None:
    """Remove what is left of a write, which has its outcome already."""
    try:
        _unlink_all([temporary])
    except OSError as error:
        # The next cleaning finds it.
        _log.warning("temporary file left", problem=str(error))


def _sync_directory(directory: str | Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


@contextlib.contextmanager
def _working(otherwise: str) -> Generator[None]:
    """Raise what the system says as one of our errors: the message says what does not go on."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _no_room(otherwise) from error
        raise ResultStorageError(f"{otherwise}: {error}", retry_after=1.0) from error


def _no_room(otherwise: str) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"{otherwise}: the disk is full", reason="DISK_FULL", retry_after=5.0
    )
