"""What was built of what, so that nothing is built twice."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Built(BaseModel):
    """One image.

    Attributes:
        inputs: Digest of all that it was built of.
        image: The engine's id of what came out.
        archive: The file name of the archive that it is in.
        size: Bytes of its files.
        seconds: What the build took, without its dependencies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: str
    image: str
    archive: str
    size: int
    seconds: float


class Record(BaseModel):
    """All images.

    Attributes:
        images: By their full names.
        archives: By file name the ids of the images in it.
    """

    model_config = ConfigDict(extra="forbid")

    images: dict[str, Built] = Field(default_factory=dict)
    archives: dict[str, list[str]] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Return what a file says; nothing where it is missing or of another form."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return cls()

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(self.model_dump_json(indent=2) + "\n")
        temporary.replace(path)
