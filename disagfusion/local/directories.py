"""Private directories that are removed with their owner, or at the next start after it.

A directory's `lock` file is flocked for as long as a process that holds its descriptor lives. The
kernel lets go of the lock however that process ends, so a directory whose lock can be taken
belongs to nobody.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "disagfusion-"


def create_private(parent: Path | None = None) -> tuple[Path, int]:
    """Make a directory that only this user may enter, and lock it.

    Args:
        parent: Where; the system's temporary directory by default.

    Returns:
        The directory, and the descriptor that holds its lock.
    """
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    # A lock that appears under its name is already held, so that no sweep can come in between.
    fresh = directory / "lock.new"
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    fresh.rename(directory / "lock")
    return directory, descriptor


def try_lock(path: Path, *, create: bool = False) -> int | None:
    """Take the lock of a file.

    Args:
        path: The file.
        create: Whether to make it where it does not exist.

    Returns:
        The descriptor that holds it; None while another process has it.

    Raises:
        FileNotFoundError: There is no such file, and `create` is false.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def sweep(parent: Path | None = None) -> list[Path]:
    """Remove this user's private directories whose owners have gone.

    Args:
        parent: Where to look; the system's temporary directory by default.

    Returns:
        What was removed.
    """
    removed = []
    for lock in Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*/lock"):
        try:
            if lock.stat().st_uid != os.getuid():
                continue
            descriptor = try_lock(lock)
        except FileNotFoundError:
            continue  # somebody else sweeps, too
        if descriptor is None:
            continue
        shutil.rmtree(lock.parent, ignore_errors=True)
        os.close(descriptor)
        removed.append(lock.parent)
    return removed
