"""Docker, podman and buildah, as far as building needs them."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.images import archive
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
    def references(self) -> tuple[str, ...]:
        """Return the full names of all images."""

    @abstractmethod
    def remove(self, reference: str) -> None:
        """Remove a name, and the image with its last one."""

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

    def references(self) -> tuple[str, ...]:
        """See `Engine`."""
        return tuple(run([self.name, "images", "--format", "{{.Repository}}:{{.Tag}}"]).split())

    def remove(self, reference: str) -> None:
        """See `Engine`."""
        run([self.name, "image", "rm", reference])

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

    def find(self, reference: str) -> str:
        """See `Engine`."""
        listed = json.loads(self._run("images", "--all", "--json") or "[]") or []
        for image in listed:
            if reference in (image.get("names") or ()):
                return str(image["id"])
        return ""

    def references(self) -> tuple[str, ...]:
        """See `Engine`."""
        listed = json.loads(self._run("images", "--all", "--json") or "[]") or []
        return tuple(name for image in listed for name in image.get("names") or ())

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
                # Without compression, which takes minutes for gigabytes that stay on the machine.
                target = f"oci:{layout}:{reference}"
                self._run("push", "--quiet", "--disable-compression", reference, target)
            archive.name_images(layout)
            archive.pack(layout, path)
        finally:
            shutil.rmtree(layout, ignore_errors=True)


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
