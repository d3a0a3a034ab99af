"""Builds images, their dependencies first, and saves them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.images import debian, digests, wheels
from tools.images.catalog import Image, Variant, dependencies_reference
from tools.images.context import assembled
from tools.images.engines import Build, Engine
from tools.images.errors import ImageError
from tools.images.locks import lock_for
from tools.images.places import Places
from tools.images.record import Built, Record

_PULL_SECONDS = 60.0
_FETCHED = "--no-index --find-links /mnt/wheels"
_ANY_INDEX = "--index-strategy unsafe-best-match"
_REVISION = "org.opencontainers.image.revision"


@dataclass(frozen=True)
class Options:
    """How images are built.

    Attributes:
        variant: Which torch the stages have.
        base: The base's full name; "debian" for the one that is made here; empty for the
            Dockerfile's own where it can be fetched, else the one that is made here.
        torch_index: The index with torch for CPUs.
        fetch: Whether packages are fetched here and given to the build, which then needs no
            network; otherwise the build fetches them.
    """

    variant: Variant = Variant.CUDA
    base: str = ""
    torch_index: str = ""
    fetch: bool = True


def install_options(options: Options, *, own_lock: bool) -> tuple[str, str]:
    """Return what pip and uv are told about where packages come from.

    Args:
        options: How images are built.
        own_lock: Whether all packages of the lock are in the ordinary registry.
    """
    if options.fetch:
        return _FETCHED, _FETCHED
    return "", "" if own_lock else f"--index {options.torch_index} {_ANY_INDEX}"


class Builder:
    """Builds images with one engine.

    Args:
        engine: What builds and keeps them.
        places: Where everything lies.
        options: How.
        say: Told what takes long and what was done.
    """

    def __init__(
        self, engine: Engine, places: Places, options: Options, say: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._places = places
        self._options = options
        self._say = say
        self._record = Record.read(places.record)
        self._made: dict[str, tuple[str, str]] = {}
        self._base: tuple[str, str] | None = None

    def build(self, images: Sequence[Image]) -> None:
        """Build images and save them; what is as it was is left alone.

        Raises:
            ImageError: One cannot be built.
        """
        self._places.output.mkdir(parents=True, exist_ok=True)
        wheel = wheels.build_wheel(self._places)
        for image in images:
            self._build(image, wheel)
        self._engine.prune()
        for archive in sorted({image.archive_of(self._options.variant) for image in images}):
            self._save(archive)

    def _build(self, image: Image, wheel: Path) -> None:
        dependencies, digest = self._dependencies(image)
        dockerfile = self._places.dockerfiles / image.dockerfile
        inputs = digests.of_inputs([dockerfile, wheel], {"dependencies": digest})
        version = wheels.version(self._places)
        reference = image.reference(version, self._options.variant)
        known = self._record.images.get(reference)
        before = self._engine.find(reference)
        if known and known.inputs == inputs and before == known.image:
            self._say(f"{image.name}: as it was")
            return
        started = time.monotonic()
        revision = wheels.revision(self._places)
        labels = {_REVISION: revision} if revision else {}
        arguments = {"BASE": dependencies, "VERSION": version}
        with assembled(self._places.contexts / image.name, {"dist": [wheel]}) as context:
            self._engine.build(Build(dockerfile, context, reference, arguments, labels))
        seconds = round(time.monotonic() - started, 1)
        if before and before != self._engine.find(reference):
            self._engine.remove(before)
        self._record.images[reference] = Built(
            inputs=inputs,
            image=self._engine.find(reference),
            size=self._engine.size(reference),
            archive=image.archive_of(self._options.variant),
            seconds=seconds,
        )
        self._record.write(self._places.record)
        self._say(f"{image.name}: built in {seconds} s as {reference}")

    def _dependencies(self, image: Image) -> tuple[str, str]:
        """Return the name and the digest of the image of a lock's packages."""
        name = image.lock_of(self._options.variant)
        if name not in self._made:
            self._made[name] = self._make_dependencies(image, name)
        return self._made[name]

    def _make_dependencies(self, image: Image, name: str) -> tuple[str, str]:
        places, options = self._places, self._options
        base, base_id = self._find_base()
        lock = lock_for(image, options.variant, places, options.torch_index)
        dockerfile = places.dockerfiles / "dependencies.Dockerfile"
        bootstrap = places.requirements / f"{wheels.BOOTSTRAP}.txt"
        reduce = places.dockerfiles / "reduce.py"
        digest = digests.of_inputs([dockerfile, reduce, bootstrap, lock], {"base": base_id})
        reference = dependencies_reference(name, digest)
        if self._engine.find(reference):
            return reference, digest
        packages = self._fetch(lock) + self._fetch(bootstrap) if options.fetch else []
        started = time.monotonic()
        self._say(f"{name}: installing its packages")
        pip, uv = install_options(options, own_lock=lock.parent == places.requirements)
        arguments = {"BASE": base, "LOCK": name, "PIP_OPTIONS": pip, "UV_OPTIONS": uv}
        files = {"requirements": [lock, bootstrap], "Dockerfiles": [reduce], "wheels": packages}
        with assembled(places.contexts / f"{name}-dependencies", files) as context:
            self._engine.build(Build(dockerfile, context, reference, arguments))
        self._remove_older(reference)
        self._say(f"{name}: packages installed in {time.monotonic() - started:.1f} s")
        return reference, digest

    def _fetch(self, lock: Path) -> list[Path]:
        index = self._options.torch_index if lock.parent != self._places.requirements else ""
        return sorted(wheels.fetch(lock, self._places, index).iterdir())

    def _remove_older(self, reference: str) -> None:
        """Remove what an image was before: the largest has gigabytes."""
        repository = reference.rpartition(":")[0]
        for other in self._engine.references():
            if other.rpartition(":")[0] == repository and other != reference:
                self._engine.remove(other)

    def _find_base(self) -> tuple[str, str]:
        """Return the name and the id of the base."""
        if self._base is None:
            self._base = self._choose_base()
        return self._base

    def _choose_base(self) -> tuple[str, str]:
        wanted = self._options.base or self._default_base()
        # Where it was made once the registry is not asked again.
        made_before = not self._options.base and self._engine.find(debian.reference())
        if wanted != "debian" and not made_before:
            if found := self._engine.find(wanted):
                return wanted, found
            try:
                self._engine.pull(wanted, _PULL_SECONDS)
                return wanted, self._engine.find(wanted)
            except ImageError as error:
                if self._options.base:
                    raise
                reason = str(error).splitlines()[-1]
                self._say(f"{wanted} cannot be fetched ({reason})")
        reference = debian.reference()
        made = debian.make_base(self._engine, self._places, self._say)
        self._remove_older(reference)
        return reference, made

    def _default_base(self) -> str:
        text = (self._places.dockerfiles / "dependencies.Dockerfile").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("ARG BASE="))
        return line.partition("=")[2]

    def _save(self, archive: str) -> None:
        """Save all images of an archive that are there, if one of them is new."""
        present = {
            reference: built.image
            for reference, built in sorted(self._record.images.items())
            if built.archive == archive and self._engine.find(reference) == built.image
        }
        path = self._places.output / archive
        if path.exists() and self._record.archives.get(archive) == list(present.values()):
            return
        started = time.monotonic()
        self._engine.save(list(present), path)
        self._record.archives[archive] = list(present.values())
        self._record.write(self._places.record)
        self._say(
            f"{archive}: saved in {time.monotonic() - started:.1f} s, "
            f"{path.stat().st_size / 1e6:,.0f} MB"
        )
