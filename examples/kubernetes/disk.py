"""Whether a disk has room for a cluster, its images and what they are built with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

GB = 10**9


@dataclass(frozen=True)
class Part:
    """Something that takes room.

    Attributes:
        what: As people call it.
        gigabytes: In the end.
        places: Directories that it fills; the room is taken from the first one's file system.
        made: Exists where nothing of it has to be made any more.
    """

    what: str
    gigabytes: float
    places: tuple[Path, ...]
    made: Path | None = None

    def lacking(self) -> int:
        """Return the bytes that are still to come."""
        if self.made is not None and self.made.exists():
            return 0
        return max(0, int(self.gigabytes * GB) - sum(map(size, self.places)))


def parts(root: Path, environment: Mapping[str, str]) -> list[Part]:
    """Return what a cluster of two nodes takes from nothing.

    Args:
        root: The checkout.
        environment: Variables that tell Go where its caches are.
    """
    home = Path(environment.get("HOME", "/root"))
    built = Path(environment.get("GOCACHE") or home / ".cache" / "go-build")
    fetched = Path(
        environment.get("GOMODCACHE")
        or Path((environment.get("GOPATH") or str(home / "go")).split(os.pathsep)[0], "pkg", "mod")
    )
    made = root / ".tools" / "cluster" / "kube"
    own = root / ".cluster"
    return [
        Part("Kubernetes and other programs", 1.2, (root / ".tools",), made),
        Part("what Go builds them with", 6.5, (built, fetched), made),
        Part("packages and layers of images", 9.4, (root / ".cache",)),
        Part("archives of images", 4.0, (own / "images",)),
        Part("images in two nodes", 20.0, (own / "stores",)),
    ]


def size(directory: Path) -> int:
    """Return the bytes that a directory takes on the disk; none where it is not there."""
    found = 0
    for path, _, names in os.walk(directory):
        for name in names:
            try:
                found += os.lstat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return found


def complaint(
    wanted: Iterable[Part], free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
) -> str:
    """Return what is wrong, or nothing: where which file system lacks how much for what.

    Args:
        wanted: What takes room.
        free: Tells the free bytes of a directory's file system.
    """
    told = []
    systems: dict[int, list[tuple[Part, int, Path]]] = {}
    for part in wanted:
        if lacking := part.lacking():
            there = _existing(part.places[0])
            systems.setdefault(there.stat().st_dev, []).append((part, lacking, there))
    for found in systems.values():
        needed, there = sum(lacking for _, lacking, _ in found), found[0][2]
        if (left := free(there)) < needed:
            listed = ", ".join(f"{part.what} {lacking / GB:.1f}" for part, lacking, _ in found)
            told.append(
                f"the file system of {there} has {left / GB:.1f} GB free,"
                f" expected {needed / GB:.1f}: {listed}"
            )
    return "; ".join(told)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
