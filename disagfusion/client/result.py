"""What a finished generation gives its user."""

from __future__ import annotations

import io
import mimetypes
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from disagfusion.client.types import Job, Output, StageRecord
from disagfusion.errors import InvalidArgumentError

_SUFFIXES = {
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/webp": (".webp",),
    "video/mp4": (".mp4",),
}


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An encoded result with its bytes.

    Attributes:
        info: What the service says about it.
        content: The file's bytes, checksum verified.
    """

    info: Output
    content: bytes

    @property
    def content_type(self) -> str:
        """Such as "image/png"."""
        return self.info.content_type

    @property
    def suffix(self) -> str:
        """What a file of this type ends in, such as ".png"."""
        known = _SUFFIXES.get(self.content_type)
        return known[0] if known else mimetypes.guess_extension(self.content_type) or ".bin"

    def fits(self, suffix: str) -> bool:
        """Return whether a file of this type may end in a suffix."""
        return suffix.lower() in _SUFFIXES.get(self.content_type, (self.suffix,))


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A job that succeeded, and its results.

    Attributes:
        job: The job.
        outputs: Its results as files, in order.
    """

    job: Job
    outputs: tuple[OutputFile, ...]

    @property
    def images(self) -> list[Image.Image]:
        """The pictures, decoded; empty where the results are videos."""
        pictures = []
        for output in self.outputs:
            if output.content_type.startswith("image/"):
                with Image.open(io.BytesIO(output.content)) as picture:
                    picture.load()
                    pictures.append(picture.copy())
        return pictures

    @property
    def videos(self) -> list[bytes]:
        """The videos as files; empty where the results are pictures."""
        return [one.content for one in self.outputs if one.content_type.startswith("video/")]

    @property
    def seed(self) -> int:
        """The seed that was used; the same seed gives the same result."""
        return self.job.generation.seed or 0

    @property
    def stages(self) -> tuple[StageRecord, ...]:
        """Where and how each stage of each attempt ran."""
        return self.job.stages

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write the results to files.

        Args:
            path: The file. Of several results each gets its number before the suffix:
                `seven-0.png`, `seven-1.png`, … Without a suffix it gets the right one.

        Returns:
            The files.

        Raises:
            InvalidArgumentError: The suffix is another format's, or the file cannot be written.
        """
        target = Path(path)
        written = []
        for output in self.outputs:
            suffix = target.suffix or output.suffix
            if not output.fits(suffix):
                raise InvalidArgumentError(
                    "path", f"{target} does not suit {output.content_type}", expected=output.suffix
                )
            number = f"-{output.info.index}" if len(self.outputs) > 1 else ""
            file = target.with_name(f"{target.stem}{number}{suffix}")
            try:
                file.write_bytes(output.content)
            except OSError as error:
                raise InvalidArgumentError(
                    "path", f"cannot write {file}: {error.strerror}"
                ) from error
            written.append(file)
        return written
