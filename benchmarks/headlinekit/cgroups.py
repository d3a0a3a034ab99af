"""Groups of processes with a limit of memory or processor time, with cgroups of either version."""

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
# Microseconds; the kernel accounts by ticks, so that shorter ones are kept less exactly.
_PERIOD = 100_000
# Of version 1.
_LIMITS = {"memory": "memory.limit_in_bytes", "cpu": "cpu.cfs_quota_us"}


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
    """Where groups with limits can be made.

    Attributes:
        version: 1 or 2.
        parent: Directory in which they are made.
    """

    version: int
    parent: Path


def find_hierarchy(
    root: Path = ROOT, own: Path = Path("/proc/self/cgroup"), controller: str = "memory"
) -> Hierarchy:
    """Find out where this process can make groups that limit memory, or "cpu".

    With version 1 below the group of this process, whose own limits keep holding. With version 2
    a group that has processes cannot have limited children, so they are made at the top.

    Raises:
        FailedPreconditionError: Nowhere; says why.
    """
    if os.geteuid() != 0:
        raise FailedPreconditionError(f"limits of {controller} need root: start this as root")
    if (root / "cgroup.controllers").exists():
        control = root / "cgroup.subtree_control"
        try:
            if controller not in control.read_text().split():
                control.write_text(f"+{controller}")
        except OSError as error:
            raise FailedPreconditionError(
                f"{control}: the {controller} controller cannot be enabled: {error.strerror}"
            ) from error
        return Hierarchy(2, root)
    if (root / controller / _LIMITS[controller]).exists():
        return Hierarchy(1, root / controller / _own_group(own, controller).lstrip("/"))
    raise FailedPreconditionError(
        f"{root}: no cgroup hierarchy has the {controller} controller (expected version 1 or 2)"
    )


def _own_group(file: Path, controller: str) -> str:
    for line in file.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    raise FailedPreconditionError(f"{file}: this process is in no {controller} group")


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
        _remove(self.directory)

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Shares:
    """Groups of one process each, which gets a share of one core; removed when this is closed.

    Args:
        share: Of a core.
    """

    def __init__(self, share: float) -> None:
        self._hierarchy = find_hierarchy(controller="cpu")
        self._quota = int(share * _PERIOD)
        self._groups: dict[int, Path] = {}

    def add(self, pid: int) -> None:
        """Restrict a process from now on; one that is restricted already stays so."""
        if pid in self._groups:
            return
        directory = self._hierarchy.parent / f"disagfusion-{os.getpid()}-cpu-{pid}"
        directory.mkdir()
        self._groups[pid] = directory
        if self._hierarchy.version == 2:
            (directory / "cpu.max").write_text(f"{self._quota} {_PERIOD}")
        else:
            (directory / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (directory / "cpu.cfs_quota_us").write_text(str(self._quota))
        (directory / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Remove the groups; their processes have ended, or are about to."""
        for directory in self._groups.values():
            _remove(directory)

    def __enter__(self) -> Shares:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remove(directory: Path) -> None:
    deadline = time.monotonic() + _REMOVE_SECONDS
    while True:
        try:
            directory.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


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
