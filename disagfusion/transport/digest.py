"""Checksums of payloads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import xxhash

# Of contiguous memory; called in any thread, releases the interpreter's lock for large memory.
Digest = Callable[[memoryview], int]
# Awaited by the receiver when a segment is in its memory and before it counts: lets tests make any
# backend as slow as a network.
Hold = Callable[[memoryview], Awaitable[None]]

# Below this a hop to another thread takes longer than the checksum (10 to 40 GB/s).
_INLINE = 256 << 10


def xxh3(view: memoryview) -> int:
    """Return xxh3_64 of a contiguous view."""
    return xxhash.xxh3_64_intdigest(view)


async def no_hold(view: memoryview) -> None:
    """Hold nothing back."""


class Digester:
    """Computes checksums, in threads where it would hold up the event loop.

    Args:
        digest: Of one view.
        threads: How many are computed at the same time.

    Attributes:
        digest: Of one view, here and now.
    """

    def __init__(self, digest: Digest = xxh3, threads: int = 2) -> None:
        self.digest = digest
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="transport-digest")

    async def __call__(self, view: memoryview) -> int:
        """Return the checksum of a contiguous view; nothing reads it any more afterwards."""
        if view.nbytes <= _INLINE:
            return self.digest(view)
        computed = asyncio.get_running_loop().run_in_executor(self._pool, self._take, [view])
        try:
            return await asyncio.shield(computed)
        except asyncio.CancelledError:
            # A thread cannot be interrupted: it reads to the end, in less than a millisecond.
            await asyncio.wait([computed])
            raise

    def _take(self, views: list[memoryview]) -> int:
        # The pool keeps its arguments for a moment longer than the work takes.
        return self.digest(views.pop())

    async def aclose(self) -> None:
        """Finish what is under way and end the threads; no memory is referred to afterwards."""
        self._pool.shutdown(wait=True)
        # The event loop still holds what the threads handed back.
        await asyncio.sleep(0)
