"""Memory that front and engine share: a memfd, which has no name and ends with its last user."""

from __future__ import annotations

import mmap
import os


class SharedMemory:
    """A range of memory that other processes can map, too.

    The first part are the input slots, the rest is for held outputs. Pages that were never written
    take no room.

    Args:
        descriptor: Of a memfd; owned from now on.
        nbytes: Its size.
    """

    def __init__(self, descriptor: int, nbytes: int) -> None:
        self.descriptor = descriptor
        self.nbytes = nbytes
        self._map = mmap.mmap(descriptor, nbytes)
        self._view = memoryview(self._map)

    @classmethod
    def create(cls, nbytes: int) -> SharedMemory:
        """Make new memory, all zero."""
        descriptor = os.memfd_create("disagfusion", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, nbytes)
        return cls(descriptor, nbytes)

    @classmethod
    def attach(cls, descriptor: int, nbytes: int) -> SharedMemory:
        """Map what another process made.

        Raises:
            ValueError: It is smaller than it should be.
        """
        if os.fstat(descriptor).st_size < nbytes:
            raise ValueError("the memory is smaller than announced")
        return cls(descriptor, nbytes)

    def view(self, offset: int, nbytes: int) -> memoryview:
        """Return a part of the memory, writable.

        Raises:
            ValueError: It lies outside.
        """
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise ValueError(f"{nbytes} bytes at {offset} are outside of the memory")
        return self._view[offset : offset + nbytes]

    def close(self) -> None:
        """Close the descriptor. The mapping lasts as long as anything looks at it."""
        os.close(self.descriptor)
