"""Where files lie: what is read of the checkout, what is kept, and what is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Places:
    """Directories and files of one checkout.

    Attributes:
        root: The checkout.
        output: Where archives and the record of them go.
    """

    root: Path = ROOT
    output: Path = ROOT / ".cluster" / "images"

    @property
    def dockerfiles(self) -> Path:
        """What builds are told."""
        return self.root / "Dockerfiles"

    @property
    def requirements(self) -> Path:
        """The locks."""
        return self.root / "requirements"

    @property
    def cache(self) -> Path:
        """What is kept to build faster; all of it may be removed."""
        return self.root / ".cache" / "images"

    @property
    def storage(self) -> Path:
        """Layers and images of an engine that has no place of its own."""
        return self.cache / "storage"

    @property
    def contexts(self) -> Path:
        """What single builds are given."""
        return self.cache / "contexts"

    @property
    def wheels(self) -> Path:
        """Packages that were fetched, one directory for each lock."""
        return self.cache / "wheels"

    @property
    def dist(self) -> Path:
        """The wheel of the checkout."""
        return self.cache / "dist"

    @property
    def record(self) -> Path:
        """What was built of what."""
        return self.output / "images.json"
