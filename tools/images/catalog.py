"""Which images there are, and what each is made of. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tools.images.errors import ImageError

REGISTRY = "localhost"
"""What stands before the names of images that have not been given to a registry."""


class Variant(StrEnum):
    """Which build of torch the stages have.

    CUDA is the one of the package registry; it runs without a GPU as well. CPU is much smaller and
    comes from an index of its own.
    """

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class Image:
    """An image.

    Attributes:
        name: What it is called in commands.
        lock: The file in requirements/ whose packages it has, without its ending.
        archive: The archive it is saved in. Images with one lock share one, so that the layer of
            their packages is in it once.
    """

    name: str
    lock: str
    archive: str

    @property
    def repository(self) -> str:
        """Its name without a registry and a tag."""
        return f"disagfusion-{self.name}"

    @property
    def dockerfile(self) -> str:
        """The file in Dockerfiles/ that it is built from."""
        return f"{self.name}.Dockerfile"

    @property
    def has_variants(self) -> bool:
        """Whether it has torch."""
        return self.lock == "stage"

    def lock_of(self, variant: Variant) -> str:
        """Return the name of the lock of a variant."""
        return f"{self.lock}-cpu" if self.has_variants and variant is Variant.CPU else self.lock

    def archive_of(self, variant: Variant) -> str:
        """Return the name of the archive of a variant."""
        suffix = "-cpu" if self.has_variants and variant is Variant.CPU else ""
        return f"disagfusion-{self.archive}{suffix}.tar"

    def reference(self, version: str, variant: Variant) -> str:
        """Return its full name, such as `localhost/disagfusion-dit:0.1.0`."""
        suffix = "-cpu" if self.has_variants and variant is Variant.CPU else ""
        return f"{REGISTRY}/{self.repository}:{version}{suffix}"


IMAGES = (
    Image("gateway", "gateway", "gateway"),
    Image("emulated", "emulated", "emulated"),
    Image("operator", "operator", "operator"),
    Image("encoder", "stage", "stages"),
    Image("dit", "stage", "stages"),
    Image("decoder", "stage", "stages"),
    Image("flex", "stage", "stages"),
)


def select(names: Iterable[str]) -> tuple[Image, ...]:
    """Return the images of these names, in the catalog's order; all where there are none.

    Raises:
        ImageError: There is no such image.
    """
    wanted = set(names)
    known = {image.name for image in IMAGES}
    if unknown := sorted(wanted - known):
        raise ImageError(
            f"no image is called {', '.join(unknown)}: expected {', '.join(sorted(known))}"
        )
    return tuple(image for image in IMAGES if not wanted or image.name in wanted)


def dependencies_reference(lock: str, digest: str) -> str:
    """Return the full name of the image of a lock's packages.

    Args:
        lock: The lock's name.
        digest: Of all that goes into it.
    """
    return f"{REGISTRY}/disagfusion-{lock}-dependencies:{digest[:12]}"
