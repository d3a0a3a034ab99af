"""One control group for the pods of each real node, in cgroup version 1 or 2."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_TRIES = 50
_PAUSE_SECONDS = 0.1


def unified(root: Path = ROOT) -> bool:
    """Tell whether the machine has version 2 alone."""
    return (root / "cgroup.controllers").exists()


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Return the directories under which groups are made: with version 1 one per controller."""
    if unified(root):
        return [root]
    # What is mounted twice under two names is a link.
    return sorted(
        path
        for path in root.iterdir()
        if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists()
    )


def create(name: str, root: Path = ROOT) -> None:
    """Make a group in every hierarchy."""
    if unified(root):
        available = (root / "cgroup.controllers").read_text().split()
        wanted = [c for c in ("cpu", "cpuset", "memory", "pids", "hugetlb") if c in available]
        (root / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in wanted))
    for hierarchy in hierarchies(root):
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        # Version 1 gives a new group no processors and no memory.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if not unified(root) and (hierarchy / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())


def processes(name: str, root: Path = ROOT) -> set[int]:
    """Return the processes in a group and in those below it."""
    found: set[int] = set()
    for hierarchy in hierarchies(root):
        for path in (hierarchy / name).glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(line) for line in path.read_text().split())
    return found


def kill(name: str, root: Path = ROOT) -> None:
    """Kill every process in a group; those too that others start meanwhile."""
    for _ in range(_TRIES):
        running = processes(name, root)
        if not running:
            return
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def remove(name: str, root: Path = ROOT) -> None:
    """Remove a group and those below it, in every hierarchy; what is in use stays."""
    for hierarchy in hierarchies(root):
        for directory in _deepest_first(hierarchy / name):
            with contextlib.suppress(OSError):
                directory.rmdir()


def _deepest_first(top: Path) -> Iterator[Path]:
    if top.is_dir():
        for directory, _, _ in os.walk(top, topdown=False):
            yield Path(directory)
