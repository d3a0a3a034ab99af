"""Docker, podman and buildah, as far as building needs them."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.images import archive, sharing
from tools.images.commands import run, succeeds
from tools.images.errors import ImageError
from tools.images.places import Places

NAMES = ("docker", "podman", "buildah")


@dataclass(frozen=True)
class Build:
    """What a build is told.

    Attributes:
        dockerfile: The file that describes it.
        context: The directory that it may read.
        reference: What the image is to be called.
        arguments: Build arguments.
        labels: Labels in addition to the file's own.
    """

    dockerfile: Path
    context: Path
    reference: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        """The command line that all engines understand."""
        found = ["--file", str(self.dockerfile), "--tag", self.reference]
        for name, value in sorted(self.arguments.items()):
            found += ["--build-arg", f"{name}={value}"]
        for name, value in sorted(self.labels.items()):
            found += ["--label", f"{name}={value}"]
        return [*found, str(self.context)]


class Engine(ABC):
    """Builds images and keeps them. Every method raises ImageError where the program fails."""

    name: str

    @abstractmethod
    def build(self, build: Build) -> None:
        """Build an image."""

    @abstractmethod
    def find(self, reference: str) -> str:
        """Return an image's id; empty where there is no such image."""

    @abstractmethod
    def size(self, reference: str) -> int:
        """Return the bytes of an image's files; to three digits where the program says no more."""

    @abstractmethod
    def references(self) -> tuple[str, ...]:
        """Return the full names of all images."""

    @abstractmethod
    def remove(self, reference: str) -> None:
        """Remove a name, and the image with its last one; or an image by its id."""

    @abstractmethod
    def prune(self) -> None:
        """Remove images without a name, where they cannot be anyone else's."""

    @abstractmethod
    def pull(self, reference: str, seconds: float) -> None:
        """Fetch an image from its registry within some seconds."""

    @abstractmethod
    def save(self, references: Sequence[str], path: Path) -> None:
        """Write images into one archive, layers that they share once."""


class ClientEngine(Engine):
    """Docker or podman, which have the same command line here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, build: Build) -> None:
        """See `Engine`."""
        # Podman's cache does not look at what is mounted into a step.
        cache = ["--layers=false"] if self.name == "podman" else []
        command = [self.name, "build", "--quiet", *cache, *build.options]
        run(command, environment={"DOCKER_BUILDKIT": "1"})

    def find(self, reference: str) -> str:
        """See `Engine`."""
        command = [self.name, "image", "inspect", "--format", "{{.Id}}", reference]
        return run(command).strip() if succeeds(command) else ""

    def size(self, reference: str) -> int:
        """See `Engine`."""
        return int(run([self.name, "image", "inspect", "--format", "{{.Size}}", reference]))

    def references(self) -> tuple[str, ...]:
        """See `Engine`."""
        return tuple(run([self.name, "images", "--format", "{{.Repository}}:{{.Tag}}"]).split())

    def remove(self, reference: str) -> None:
        """See `Engine`."""
        run([self.name, "image", "rm", reference])

    def prune(self) -> None:
        """See `Engine`; others build with it as well."""

    def pull(self, reference: str, seconds: float) -> None:
        """See `Engine`."""
        run([self.name, "pull", "--quiet", reference], timeout=seconds)

    def save(self, references: Sequence[str], path: Path) -> None:
        """See `Engine`."""
        several = ["--format", "docker-archive", "--multi-image-archive"]
        options = several if self.name == "podman" else []
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        run([self.name, "save", *options, "--output", str(temporary), *references])
        temporary.replace(path)


class BuildahEngine(Engine):
    """buildah, as root and without a daemon, with a storage of its own."""

    name = "buildah"

    def __init__(self, places: Places) -> None:
        self._places = places
        storage = places.storage
        self.command = [
            *("buildah", "--storage-driver", "overlay"),
            *("--root", str(storage / "root"), "--runroot", str(storage / "run")),
        ]

    def _run(self, *arguments: str, timeout: float | None = None) -> str:
        # Neither namespaces nor control groups, which a machine may not let one have.
        environment = {"BUILDAH_ISOLATION": "chroot"}
        return run([*self.command, *arguments], environment=environment, timeout=timeout)

    def build(self, build: Build) -> None:
        """See `Engine`."""
        # Its cache does not look at what is mounted into a step.
        self._run("build", "--quiet", "--layers=false", "--force-rm", *build.options)

    def _images(self) -> dict[str, dict[str, Any]]:
        """Return what is said of images, by each of their names."""
        listed = json.loads(self._run("images", "--all", "--json") or "[]") or []
        return {name: image for image in listed for name in image.get("names") or ()}

    def find(self, reference: str) -> str:
        """See `Engine`."""
        return str(self._images().get(reference, {}).get("id", ""))

    def size(self, reference: str) -> int:
        """See `Engine`."""
        return parse_size(self._images()[reference]["size"])

    def references(self) -> tuple[str, ...]:
        """See `Engine`."""
        return tuple(self._images())

    def prune(self) -> None:
        """See `Engine`; the storage is this tool's own."""
        self._run("rmi", "--prune")

    def remove(self, reference: str) -> None:
        """See `Engine`."""
        self._run("rmi", reference)

    def pull(self, reference: str, seconds: float) -> None:
        """See `Engine`."""
        self._run("pull", "--quiet", reference, timeout=seconds)

    def save(self, references: Sequence[str], path: Path) -> None:
        """See `Engine`."""
        layout = path.with_name(f".{path.name}.layout")
        shutil.rmtree(layout, ignore_errors=True)
        try:
            for reference in references:
                # Nodes unpack it several times as fast as gzip.
                fast = ("--compression-format", "zstd", "--compression-level", "3")
                shared = sharing.announce(layout)
                self._run("push", "--quiet", *fast, reference, f"oci:{layout}:{reference}")
                sharing.settle(layout, shared)
            archive.name_images(layout)
            archive.pack(layout, path)
        finally:
            shutil.rmtree(layout, ignore_errors=True)


def parse_size(text: str) -> int:
    """Return the bytes that buildah means by "1.23 GB"."""
    number, unit = text.split()
    power: int = ("B", "KB", "MB", "GB").index(unit.upper())
    return round(float(number) * 1000.0**power)


def choose(wanted: str, places: Places) -> Engine:
    """Return an engine that works.

    Args:
        wanted: One of `NAMES`, or "auto" for the first of them that works.
        places: Where buildah keeps its images.

    Raises:
        ImageError: None works; the message says what to do.
    """
    for name in NAMES if wanted == "auto" else (wanted,):
        if _works(name):
            return BuildahEngine(places) if name == "buildah" else ClientEngine(name)
    if wanted == "auto":
        raise ImageError(f"none of {', '.join(NAMES)} works here: install one of them")
    raise ImageError(f"{wanted} does not work here: `{wanted} info` says why")


def _works(name: str) -> bool:
    """Return whether a program is there and can be used; Docker's needs its daemon."""
    if name == "buildah" and os.geteuid() != 0:
        return False
    return shutil.which(name) is not None and succeeds([name, "info"])
