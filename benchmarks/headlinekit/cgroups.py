"""Groups of processes with a limit of memory, with cgroups of either version."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from disagfusion.errors import FailedPreconditionError

ROOT = Path("/sys/fs/cgroup")
_MEBIBYTE = 2**20
_REMOVE_SECONDS = 10.0


@dataclass(frozen=True)
class Memory:
    """What the kernel says of a group's memory; MiB where nothing else is said.

    Attributes:
        limit: The most that it may have; 0 for none.
        peak: The most that was charged to it, page cache included.
        page_cache: Files' pages charged to it at the end.
        anonymous: Other pages at the end.
        read_again: Files' pages that were dropped for want of memory and then read again.
        hits: How often the kernel says that the limit was reached. Version 1 counts what it could
            not help by dropping pages of files.
        major_faults: Pages that had to be read from a file.
        killed: Processes that were ended for want of memory.
    """

    limit: float
    peak: float
    page_cache: float
    anonymous: float
    read_again: float
    hits: int
    major_faults: int
    killed: int


@dataclass(frozen=True)
class Hierarchy:
    """Where groups with limits of memory can be made.

    Attributes:
        version: 1 or 2.
        parent: Directory in which they are made.
    """

    version: int
    parent: Path


def find_hierarchy(root: Path = ROOT, own: Path = Path("/proc/self/cgroup")) -> Hierarchy:
    """Find out where this process can make groups.

    With version 1 below the group of this process, whose own limits keep holding. With version 2
    a group that has processes cannot have limited children, so they are made at the top.

    Raises:
        FailedPreconditionError: Nowhere; says why.
    """
    if os.geteuid() != 0:
        raise FailedPreconditionError("limits of memory need root: start this as root")
    if (root / "cgroup.controllers").exists():
        control = root / "cgroup.subtree_control"
        try:
            if "memory" not in control.read_text().split():
                control.write_text("+memory")
        except OSError as error:
            raise FailedPreconditionError(
                f"{control}: the memory controller cannot be enabled: {error.strerror}"
            ) from error
        return Hierarchy(2, root)
    if (root / "memory" / "memory.limit_in_bytes").exists():
        return Hierarchy(1, root / "memory" / _own_group(own).lstrip("/"))
    raise FailedPreconditionError(
        f"{root}: no cgroup hierarchy has the memory controller (expected version 1 or 2)"
    )


def _own_group(file: Path) -> str:
    for line in file.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path
    raise FailedPreconditionError(f"{file}: this process is in no memory group")


class Group:
    """A group of processes; remove it when they have ended.

    Args:
        hierarchy: Where it is made.
        name: Of its directory.
        limit: MiB for all its processes together, page cache included; None for no limit.
    """

    def __init__(self, hierarchy: Hierarchy, name: str, limit: int | None) -> None:
        self._version = hierarchy.version
        self._limit = limit or 0
        self.directory = hierarchy.parent / f"disagfusion-{os.getpid()}-{name}"
        try:
            self.directory.mkdir()
            if limit is not None:
                self._restrict(limit * _MEBIBYTE)
        except OSError as error:
            raise FailedPreconditionError(
                f"{error.filename}: no group can be made: {error.strerror}"
            ) from error

    def _restrict(self, limit: int) -> None:
        if self._version == 2:
            (self.directory / "memory.max").write_text(str(limit))
            swap, value = self.directory / "memory.swap.max", 0
        else:
            (self.directory / "memory.limit_in_bytes").write_text(str(limit))
            # Memory and swap together.
            swap, value = self.directory / "memory.memsw.limit_in_bytes", limit
        if swap.exists():
            swap.write_text(str(value))

    def command(self, arguments: Sequence[str]) -> tuple[str, ...]:
        """Return a command that enters the group before it becomes the given one."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ("/bin/sh", "-c", enter, str(self.directory / "cgroup.procs"), *arguments)

    def memory(self) -> Memory:
        """Read what the kernel has counted."""
        stat = _pairs(self.directory / "memory.stat")
        if self._version == 2:
            events = _pairs(self.directory / "memory.events")
            peak, hits = self._number("memory.peak"), events["max"]
            cache, anonymous = stat["file"], stat["anon"]
            refaults = stat["workingset_refault_file"]
        else:
            events = _pairs(self.directory / "memory.oom_control")
            peak, hits = self._number("memory.max_usage_in_bytes"), self._number("memory.failcnt")
            cache, anonymous = stat["total_cache"], stat["total_rss"]
            refaults = stat["total_workingset_refault_file"]
        return Memory(
            limit=self._limit,
            peak=peak / _MEBIBYTE,
            page_cache=cache / _MEBIBYTE,
            anonymous=anonymous / _MEBIBYTE,
            read_again=refaults * resource.getpagesize() / _MEBIBYTE,
            hits=hits,
            major_faults=stat.get("pgmajfault", 0),
            killed=events.get("oom_kill", 0),
        )

    def _number(self, name: str) -> int:
        return int((self.directory / name).read_text())

    def remove(self) -> None:
        """Remove the group; its processes are about to end."""
        deadline = time.monotonic() + _REMOVE_SECONDS
        while True:
            try:
                self.directory.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _pairs(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, file.read_text().splitlines())}


def forget(directory: Path) -> None:
    """Drop the cached pages of all files below a directory.

    Otherwise they would stay charged to whoever read them first, and be free for others.
    """
    for file in directory.rglob("*"):
        if file.is_file():
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(file, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)
