"""What a source has: files with sizes and digests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from disagfusion.weights.errors import CorruptError

# Names that mean the same file everywhere.
_NAME = re.compile(r"[A-Za-z0-9_+=@,()\[\] -][A-Za-z0-9._+=@,()\[\] -]*")
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a source.

    Attributes:
        path: Below the model's directory, with slashes.
        size: In bytes.
        sha256: Of its content; empty where the source does not say.
        git_sha1: Of git's object of it, which the hub says of small files; empty where unknown.
        place: Where the source has it; opaque to others.
    """

    path: str
    size: int
    sha256: str = ""
    git_sha1: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of one version of a model.

    Attributes:
        version: Names this version; what stages of one job must have in common.
        revision: As the source names it: a commit, or the same as `version`.
        files: In any order.
    """

    version: str
    revision: str
    files: tuple[RemoteFile, ...]


class Source(Protocol):
    """Where weights come from.

    Attributes:
        name: For people, and for the cache: the same model has the same name.
    """

    name: str

    def resolve(self) -> Listing:
        """Return what there is.

        Raises:
            WeightsError: Nothing can be had.
        """

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """Yield a file's content from an offset on; sources that cannot skip begin at 0 and skip.

        Raises:
            WeightsError: It cannot be had at all.
            OSError: Not now; another attempt may do.
        """


def check_path(path: str) -> str:
    """Return a path below a model's directory as it was given.

    Raises:
        CorruptError: It leads elsewhere, or is not portable.
    """
    if len(path) > _LONGEST or not all(map(_NAME.fullmatch, path.split("/"))):
        raise CorruptError(f"the source lists a file that is not allowed: {path[:80]!r}")
    return path


def digest_of(files: Iterable[RemoteFile]) -> str:
    """Return a version for files whose source gives none."""
    lines = sorted((file.path, file.size, file.sha256) for file in files)
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def suffix(path: str) -> str:
    """Return a path's last suffix, in lower case."""
    return PurePosixPath(path).suffix.lower()
