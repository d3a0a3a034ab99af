"""Files from a source to their place: whole and verified, or not there at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO

from disagfusion.weights.cache import Entry, Tree, sync_directory
from disagfusion.weights.errors import CorruptError, NoSpaceError, UnreachableError, WeightsError
from disagfusion.weights.listing import RemoteFile, Source, file_sha256

_CHUNK_BYTES = 1 << 20
# Attempts in a row that bring nothing new; those that do are not counted.
_ATTEMPTS = 5
_LONGEST_DELAY = 15.0
_PROGRESS_SECONDS = 10.0
_FULL = {
    errno.ENOSPC: "there is no space left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is larger than this process may write",
}


class _Stopped(Exception):
    """Another file has failed."""


class _Digests:
    """The digests by which a file is known."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        # As git computes the name of a file's content; it says what, it does not keep secrets.
        self._sha1 = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        self.size = 0

    def update(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._file.git_sha1:
            self._sha1.update(chunk)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def problem(self) -> str:
        """Return what is wrong with the whole content; empty where nothing is."""
        file = self._file
        if self.size != file.size:
            return f"has {self.size} bytes and not {file.size}"
        if file.sha256 and self.sha256 != file.sha256:
            return f"has the SHA-256 {self.sha256} and not {file.sha256}"
        if file.git_sha1 and self._sha1.hexdigest() != file.git_sha1:
            return f"has the git object {self._sha1.hexdigest()} and not {file.git_sha1}"
        return ""


class Downloader:
    """Fetches files of one model.

    Args:
        source: Where from.
        tree: Where to.
        streams: Files at the same time.
        progress: Is told the bytes of all files so far, from time to time.
        delay: Seconds before the second attempt; doubled for each further one.
    """

    def __init__(
        self,
        source: Source,
        tree: Tree,
        *,
        streams: int = 4,
        progress: Callable[[int], None] = lambda _: None,
        delay: float = 0.5,
    ) -> None:
        self._source = source
        self._tree = tree
        self._streams = streams
        self._progress = progress
        self._delay = delay
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._bytes = 0
        self._told = time.monotonic()

    def missing_bytes(self, files: Iterable[RemoteFile]) -> int:
        """Return what there is still to come of files, some of which may be here in part."""
        return sum(file.size - min(file.size, _size(self._partial(file))) for file in files)

    def take_back(self, file: RemoteFile) -> None:
        """Look at a file again that is in its place already, if it is."""
        with contextlib.suppress(FileNotFoundError):
            (self._tree.path / file.path).replace(self._partial(file))

    def fetch(self, files: Iterable[RemoteFile]) -> Iterator[tuple[str, Entry]]:
        """Fetch files; yield each that is in its place, in the order in which they get there.

        Raises:
            WeightsError: One of them cannot be had; what there is of the others is kept.
        """
        with ThreadPoolExecutor(self._streams, thread_name_prefix="fetch") as pool:
            # The largest first, so that it is not alone in the end.
            order = sorted(files, key=lambda file: -file.size)
            waiting = {pool.submit(self._fetch, file): file for file in order}
            try:
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    # What is there is noted before what is not is said.
                    for future in sorted(done, key=lambda one: one.exception() is not None):
                        yield waiting.pop(future).path, future.result()
            finally:
                self._stop.set()
                for future in waiting:
                    future.cancel()

    def _fetch(self, file: RemoteFile) -> Entry:
        partial = self._partial(file)
        for again in (True, False):
            digests = _Digests(file)
            self._complete(file, partial, digests)
            problem = digests.problem()
            if not problem:
                return self._place(file, partial, digests.sha256)
            partial.unlink()
            if not again:
                raise CorruptError(f"model {self._source.name}: {file.path} {problem}")
        raise AssertionError("the second time returns or raises")

    def _complete(self, file: RemoteFile, partial: Path, digests: _Digests) -> None:
        failures = 0
        while True:
            self._catch_up(partial, digests)
            have = digests.size
            if have >= file.size:
                return
            try:
                self._advance(file, partial, digests)
                problem = "the source ended too early"
            except OSError as error:
                problem = error.strerror or str(error)
            if digests.size >= file.size:
                return
            failures = 0 if digests.size > have else failures + 1
            if failures >= _ATTEMPTS:
                raise UnreachableError(
                    f"model {self._source.name}: {file.path} cannot be fetched beyond "
                    f"{have} of {file.size} bytes: {problem}"
                )
            if self._stop.wait(min(_LONGEST_DELAY, self._delay * 2.0**failures)):
                raise _Stopped

    def _catch_up(self, partial: Path, digests: _Digests) -> None:
        """Read what somebody has fetched who did not get further."""
        with _opened(partial, "a+b") as content:
            content.seek(digests.size)
            while chunk := content.read(_CHUNK_BYTES):
                if self._stop.is_set():
                    raise _Stopped
                digests.update(chunk)

    def _advance(self, file: RemoteFile, partial: Path, digests: _Digests) -> None:
        with _opened(partial, "ab") as target:
            for chunk in self._source.read(file, digests.size):
                if self._stop.is_set():
                    raise _Stopped
                # A source that sends more than it promised does not fill the disk.
                kept = chunk[: file.size + 1 - digests.size]
                with _writing(partial):
                    _write(target, kept)
                digests.update(kept)
                self._count(len(kept))
                if digests.size > file.size:
                    break

    def _place(self, file: RemoteFile, partial: Path, sha256: str) -> Entry:
        target = self._tree.path / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("rb") as content:
            os.fsync(content.fileno())
        partial.replace(target)
        sync_directory(target.parent)
        return Entry(file.size, sha256, target.stat().st_mtime_ns)

    def _partial(self, file: RemoteFile) -> Path:
        return self._tree.partial / hashlib.sha256(file.path.encode()).hexdigest()[:32]

    def _count(self, nbytes: int) -> None:
        with self._lock:
            self._bytes += nbytes
            now = time.monotonic()
            if now - self._told >= _PROGRESS_SECONDS:
                self._told = now
                self._progress(self._bytes)


def verify(tree: Tree, path: str, entry: Entry, *, fully: bool) -> str:
    """Return what is wrong with a file that is there; empty where nothing is.

    Args:
        tree: Of the model.
        path: The file.
        entry: As it was when it was fetched.
        fully: Read it, and do not only look at its size and time.
    """
    target = tree.path / path
    try:
        state = target.stat()
    except OSError as error:
        return error.strerror or str(error)
    if state.st_size != entry.size:
        return f"has {state.st_size} bytes and not {entry.size}"
    if not fully:
        return "" if state.st_mtime_ns == entry.mtime_ns else "was changed"
    return "" if file_sha256(target) == entry.sha256 else "has another content"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write(target: BinaryIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[target.write(rest) :]


def _opened(path: Path, mode: str) -> BinaryIO:
    # Without a buffer: what fails, fails where it is written.
    with _writing(path):
        return open(path, mode, buffering=0)  # type: ignore[return-value]


class _writing:
    """Tell what is wrong with the disk apart from what is wrong with the source."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        why = _FULL.get(error.errno or 0)
        if why is not None:
            raise NoSpaceError(f"{self._path.parent} cannot be written to: {why}") from error
        raise WeightsError(
            f"{self._path.parent} cannot be written to: {error.strerror or error}",
            reason="CACHE_UNWRITABLE",
        ) from error
