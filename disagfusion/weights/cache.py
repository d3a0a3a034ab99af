"""The cache of a node: where models are, what is there of them, and who is at work.

    CACHE/NAME/VERSION/                       a model in diffusers' layout, or a part of it
    CACHE/NAME/VERSION/disagfusion-weights.json   what it is, and what of it is there: the record
    CACHE/NAME/VERSION/.in-use                locked, shared, by who reads it
    CACHE/NAME/revisions.json                 the version that each revision last meant
    CACHE/.partial/NAME@VERSION/              files on their way
    CACHE/.locks/NAME@VERSION                 locked by who fetches, and says who that is

Locks are flock(2)'s: they hold between containers that mount the same directory of a node, and end
with their process. They are not meant for network file systems.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disagfusion.pipeline.model_files import RECORD_NAME
from disagfusion.weights.errors import WeightsError
from disagfusion.weights.listing import Listing, RemoteFile

IN_USE_NAME = ".in-use"
_REVISIONS_NAME = "revisions.json"
_POLL_SECONDS = 0.25


@dataclass(slots=True)
class Entry:
    """A file that is there.

    Attributes:
        size: In bytes.
        sha256: As it was when it was fetched.
        mtime_ns: As well.
    """

    size: int
    sha256: str
    mtime_ns: int


@dataclass(slots=True)
class Record:
    """What a directory of the cache is.

    Attributes:
        model: The source's name.
        version: Of the whole model.
        revision: As the source named it.
        listing: All files of the model.
        files: Those that are there.
    """

    model: str
    version: str
    revision: str
    listing: tuple[RemoteFile, ...]
    files: dict[str, Entry] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as it is written."""
        return {
            "model": self.model,
            "version": self.version,
            "revision": self.revision,
            "listing": [
                {"path": f.path, "size": f.size, "sha256": f.sha256, "git_sha1": f.git_sha1}
                for f in self.listing
            ],
            "files": {
                path: {"size": e.size, "sha256": e.sha256, "mtime_ns": e.mtime_ns}
                for path, e in sorted(self.files.items())
            },
        }

    @classmethod
    def from_json(cls, content: Any) -> Record:
        """Return what was written.

        Raises:
            KeyError, TypeError: It is something else.
        """
        return cls(
            content["model"],
            content["version"],
            content["revision"],
            tuple(RemoteFile(**entry) for entry in content["listing"]),
            {path: Entry(**entry) for path, entry in content["files"].items()},
        )


class Tree:
    """The directory of one version of a model.

    Args:
        cache: The cache.
        model: The source's name.
        version: Which.

    Attributes:
        path: The directory.
        partial: Where its files are until they are whole.
    """

    def __init__(self, cache: Path, model: str, version: str) -> None:
        name = directory_name(model)
        self.model = model
        self.version = version
        self.path = cache / name / version
        self.partial = cache / ".partial" / f"{name}@{version}"
        self._lock = cache / ".locks" / f"{name}@{version}"

    def create(self) -> None:
        """Make the directories.

        Raises:
            WeightsError: The cache cannot be written to.
        """
        try:
            for directory in (self.path, self.partial, self._lock.parent):
                directory.mkdir(parents=True, exist_ok=True)
            (self.path / IN_USE_NAME).touch()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def record(self) -> Record | None:
        """Return what is there; None where nothing is, or nothing that can be understood."""
        return read_record(self.path)

    def write(self, record: Record) -> None:
        """Write the record, durably."""
        write_durably(self.path / RECORD_NAME, json.dumps(record.to_json(), indent=1))

    @contextlib.contextmanager
    def locked(self, owner: str, waits: Callable[[str], None]) -> Iterator[None]:
        """Be the only one who fetches.

        Args:
            owner: Who we are, for those who wait.
            waits: Is told for whom we wait, when that is known and when it changes.

        Raises:
            WeightsError: The cache cannot be written to.
        """
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise unwritable(self._lock, error) from error
        try:
            told = ""
            while not _try_lock(descriptor, fcntl.LOCK_EX):
                holder = os.pread(descriptor, 4096, 0).decode(errors="replace") or "somebody"
                if holder != told:
                    told = holder
                    waits(holder)
                time.sleep(_POLL_SECONDS)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, owner.encode(), 0)
            yield
        finally:
            # The file stays: a lock on one that was removed would exclude nobody.
            os.close(descriptor)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be in the directory and keep it from being evicted.

        Raises:
            WeightsError: The cache cannot be written to.
        """
        descriptor = -1
        while descriptor < 0:
            self.create()
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(self.path / IN_USE_NAME, os.O_RDONLY | os.O_CLOEXEC)
                # Waits for who is evicting it just now.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if not _is(self.path / IN_USE_NAME, descriptor):
                    os.close(descriptor)
                    descriptor = -1
        try:
            yield
        finally:
            os.close(descriptor)


def directory_name(model: str) -> str:
    """Return the name of a model's directory: readable, and another one for each model."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", model).strip("-")[-80:]
    return f"{readable}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def read_record(directory: Path) -> Record | None:
    """Return what a directory of the cache is; None where it is none."""
    try:
        return Record.from_json(json.loads((directory / RECORD_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remember(cache: Path, model: str, revision: str, listing: Listing) -> None:
    """Note what a revision means now, for a time when the source cannot be asked."""
    path = cache / directory_name(model) / _REVISIONS_NAME
    revisions = _revisions(path)
    if revisions.get(revision) != listing.version:
        path.parent.mkdir(exist_ok=True)
        write_durably(path, json.dumps(revisions | {revision: listing.version}))


def remembered(cache: Path, model: str, revision: str) -> Record | None:
    """Return the record of what a revision meant last."""
    directory = cache / directory_name(model)
    version = _revisions(directory / _REVISIONS_NAME).get(revision)
    return read_record(directory / version) if version else None


def hold(model: str) -> Callable[[], None]:
    """Keep a model's directory from being evicted; return what lets it go.

    Nothing happens where it is no directory of a cache.
    """
    try:
        descriptor = os.open(Path(model) / IN_USE_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return lambda: None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return lambda: os.close(descriptor)


@contextlib.contextmanager
def unused(directory: Path) -> Iterator[bool]:
    """Tell whether nobody holds a model's directory, and keep it so."""
    descriptor = os.open(directory / IN_USE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield _try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def write_durably(path: Path, text: str) -> None:
    """Replace a file's content, which is the old or the new one whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> WeightsError:
    """Return the error for a cache that cannot be written to."""
    who = f"user {os.getuid()}"
    why = error.strerror or str(error)
    return WeightsError(
        f"the cache cannot be written to by {who}: {path}: {why}", reason="CACHE_UNWRITABLE"
    )


def _revisions(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
