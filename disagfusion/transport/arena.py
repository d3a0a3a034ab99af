"""Who has which part of a range of bytes.

Pure bookkeeping: the arena hands out offsets and knows nothing of the memory behind them, so the
same allocator serves shared memory, pinned memory and device memory.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

ALIGNMENT = 64


class ArenaFullError(Exception):
    """No free block is large enough.

    Args:
        wanted: Bytes asked for.
        largest: Bytes that could have been had.
    """

    def __init__(self, wanted: int, largest: int) -> None:
        super().__init__(f"{wanted} bytes wanted, the largest free block has {largest}")
        self.wanted = wanted
        self.largest = largest


@dataclass(frozen=True, slots=True)
class ArenaStats:
    """How full an arena is, in bytes.

    Attributes:
        capacity: Of the whole arena.
        used: In blocks that are handed out, rounding included.
        peak: The most that `used` has been.
        largest: The largest block that can be had now.
        blocks: Number of blocks handed out.
    """

    capacity: int
    used: int
    peak: int
    largest: int
    blocks: int


class Arena:
    """A best-fit allocator with coalescing over the bytes 0 … capacity - 1.

    Few and large blocks are expected (slots and held outputs), so free blocks are a sorted list.
    Not safe for threads.

    Args:
        capacity: Bytes; rounded down to the alignment.
        alignment: Every offset and every length is a multiple of it; a power of two.
    """

    def __init__(self, capacity: int, *, alignment: int = ALIGNMENT) -> None:
        if alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"alignment {alignment} is not a power of two")
        if capacity < alignment:
            raise ValueError(f"an arena of {capacity} bytes cannot hold one block of {alignment}")
        self._alignment = alignment
        self._capacity = capacity - capacity % alignment
        # Parallel lists, sorted by offset; no two neighbours touch.
        self._starts = [0]
        self._sizes = [self._capacity]
        self._taken: dict[int, int] = {}
        self._used = 0
        self._peak = 0

    def allocate(self, nbytes: int) -> int:
        """Return the offset of a block of at least `nbytes` bytes.

        A block of no bytes takes one unit of alignment, so that every offset names one block.

        Raises:
            ArenaFullError: No free block is large enough; nothing changed.
            ValueError: The size is negative.
        """
        size = self._rounded(nbytes)
        best = min(
            (i for i, free in enumerate(self._sizes) if free >= size),
            key=self._sizes.__getitem__,
            default=None,
        )
        if best is None:
            raise ArenaFullError(nbytes, max(self._sizes, default=0))
        offset = self._starts[best]
        if self._sizes[best] == size:
            del self._starts[best], self._sizes[best]
        else:
            self._starts[best] += size
            self._sizes[best] -= size
        self._taken[offset] = size
        self._used += size
        self._peak = max(self._peak, self._used)
        return offset

    def free(self, offset: int) -> None:
        """Take a block back.

        Raises:
            ValueError: No block that is handed out starts there.
        """
        size = self._taken.pop(offset, None)
        if size is None:
            raise ValueError(f"no block is handed out at offset {offset}")
        self._used -= size
        index = bisect_left(self._starts, offset)
        if index < len(self._starts) and offset + size == self._starts[index]:
            size += self._sizes[index]
            del self._starts[index], self._sizes[index]
        if index and self._starts[index - 1] + self._sizes[index - 1] == offset:
            self._sizes[index - 1] += size
        else:
            self._starts.insert(index, offset)
            self._sizes.insert(index, size)

    def fits(self, nbytes: int) -> bool:
        """Tell whether `allocate` would succeed now."""
        return self._rounded(nbytes) <= max(self._sizes, default=0)

    def size_of(self, offset: int) -> int:
        """Return the length of the block handed out at an offset, rounding included.

        Raises:
            ValueError: No block that is handed out starts there.
        """
        if offset not in self._taken:
            raise ValueError(f"no block is handed out at offset {offset}")
        return self._taken[offset]

    @property
    def stats(self) -> ArenaStats:
        """How full the arena is."""
        return ArenaStats(
            capacity=self._capacity,
            used=self._used,
            peak=self._peak,
            largest=max(self._sizes, default=0),
            blocks=len(self._taken),
        )

    def _rounded(self, nbytes: int) -> int:
        if nbytes < 0:
            raise ValueError(f"{nbytes} bytes")
        mask = self._alignment - 1
        return max(self._alignment, (nbytes + mask) & ~mask)
