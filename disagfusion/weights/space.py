"""Whether what is to be fetched fits, and what goes for it to fit."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from disagfusion.pipeline.model_files import RECORD_NAME
from disagfusion.weights.cache import Tree, read_record, unused
from disagfusion.weights.errors import NoSpaceError

# For what else grows on the volume meanwhile.
_RESERVE_BYTES = 256 << 20
# One that was just fetched may not be in use yet.
_MIN_AGE_SECONDS = 600.0


def gib(nbytes: int) -> str:
    """Return bytes for people."""
    return f"{nbytes / 2**30:.2f} GiB" if nbytes >= 10 << 20 else f"{nbytes / 2**20:.2f} MiB"


def used_bytes(cache: Path) -> int:
    """Return what the models in a cache take."""
    return sum(size for _, size, _ in _models(cache))


def free_bytes(cache: Path) -> int:
    """Return what the volume has left for us."""
    state = os.statvfs(cache)
    return state.f_bavail * state.f_frsize


def make_room(
    cache: Path,
    tree: Tree,
    needed: int,
    max_bytes: int | None,
    evicted: Callable[[str, int], None],
) -> None:
    """See to it that there is room for what is to be fetched.

    Args:
        cache: The cache.
        tree: What is fetched; it stays.
        needed: Bytes that are to come.
        max_bytes: The models may take so much in all; those that were used least recently go for
            it, unless they are in use. None: nothing ever goes.
        evicted: Is told the model and the bytes that went.

    Raises:
        NoSpaceError: There is no room, and nothing was fetched.
    """
    if not needed:
        return
    if max_bytes is not None:
        _evict(cache, tree, needed, max_bytes, evicted)
        used = used_bytes(cache)
        if used + needed > max_bytes:
            raise NoSpaceError(
                f"{gib(needed)} are to be fetched into {cache}, where models in use take "
                f"{gib(used)} of the {gib(max_bytes)} that --max-bytes allows"
            )
    free = free_bytes(cache)
    if needed + _RESERVE_BYTES > free:
        raise NoSpaceError(
            f"{gib(needed)} are to be fetched into {cache} and {gib(_RESERVE_BYTES)} to be left, "
            f"but {gib(free)} are free"
        )


def _evict(
    cache: Path, tree: Tree, needed: int, max_bytes: int, evicted: Callable[[str, int], None]
) -> None:
    used = used_bytes(cache)
    now = time.time()
    for directory, size, last in sorted(_models(cache), key=lambda model: model[2]):
        if used + needed <= max_bytes:
            return
        if directory == tree.path or now - last < _MIN_AGE_SECONDS:
            continue
        with unused(directory) as nobody:
            if not nobody:
                continue
            record = read_record(directory)
            # Without its record nobody takes what is left of it for a model.
            (directory / RECORD_NAME).unlink()
            shutil.rmtree(directory)
        used -= size
        evicted(record.model if record else directory.name, size)


def _models(cache: Path) -> list[tuple[Path, int, float]]:
    """Return each model's directory, its bytes and when it was used last."""
    found = []
    for path in cache.glob(f"*/*/{RECORD_NAME}"):
        record = read_record(path.parent)
        if record is not None:
            size = sum(entry.size for entry in record.files.values())
            found.append((path.parent, size, path.stat().st_mtime))
    return found
