"""Checksums of payloads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import xxhash

# Below this a hop to another thread takes longer than the checksum (10 to 20 GB/s).
_INLINE = 256 << 10

Digest = Callable[[memoryview], Awaitable[int]]


class Digester:
    """Computes xxh3_64, in threads where it would hold up the event loop.

    xxhash releases the interpreter's lock meanwhile.

    Args:
        threads: How many checksums are computed at the same time.
    """

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="transport-digest")

    async def __call__(self, view: memoryview) -> int:
        """Return the checksum of a contiguous view."""
        if view.nbytes <= _INLINE:
            return xxhash.xxh3_64_intdigest(view)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, xxhash.xxh3_64_intdigest, view)

    async def aclose(self) -> None:
        """Finish what is under way and end the threads; no memory is referred to afterwards."""
        self._pool.shutdown(wait=True)
        # The event loop still holds what the threads handed back.
        await asyncio.sleep(0)
