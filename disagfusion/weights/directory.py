"""A directory, such as a read-only volume with many models, and the model that comes with us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import disagfusion
from disagfusion.pipeline.model_files import RECORD_NAME, check_there, directory_version
from disagfusion.weights.errors import SourceNotFoundError
from disagfusion.weights.listing import Listing, RemoteFile, check_path

DIGITS = Path(disagfusion.__file__).parent / "local" / "digits"
_CHUNK_BYTES = 1 << 20


class DirectorySource:
    """A directory in diffusers' layout.

    Args:
        directory: Where.
        name: How it is called; the path by default.
    """

    def __init__(self, directory: Path, name: str = "") -> None:
        self.name = name or str(directory)
        self.directory = directory

    def resolve(self) -> Listing:
        """See `Source`."""
        if not self.directory.is_dir():
            raise SourceNotFoundError(f"model {self.name}: no such directory")
        check_there(str(self.directory))
        version = directory_version(self.directory)
        files = tuple(
            RemoteFile(path=check_path(name), size=path.stat().st_size, place=str(path))
            for name, path in _visible(self.directory)
        )
        return Listing(version, version, files)

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """See `Source`."""
        with open(file.place, "rb") as content:
            content.seek(offset)
            while chunk := content.read(_CHUNK_BYTES):
                yield chunk


def _visible(directory: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and relative.as_posix() != RECORD_NAME:
            yield relative.as_posix(), path
