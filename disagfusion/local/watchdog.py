"""Tells from a file that a process touches whether it still does anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path


async def silences(file: Path, interval: float) -> AsyncIterator[float]:
    """Yield, at each look at a file, for how long nobody has touched it.

    That is counted in looks, not by the clock: a machine that was suspended, or an observer that
    was held up itself, must not take its own absence for the other's silence.

    Args:
        file: What is touched.
        interval: Seconds between two looks.
    """
    before, unchanged = 0, 0
    while True:
        await asyncio.sleep(interval)
        touched = _touched(file)
        unchanged = unchanged + 1 if touched == before else 0
        before = touched
        yield unchanged * interval


def _touched(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
