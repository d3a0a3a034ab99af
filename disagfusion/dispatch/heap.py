"""A priority queue from which any entry can be removed, with memory bounded by its content."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SLACK = 64


class RemovableHeap(Generic[K]):
    """Keys in the order of their ranks; ties in the order of insertion.

    Removing leaves the entry in the heap until it surfaces; once more than half of the entries
    are such leftovers the heap is built again, so that each operation is O(log n) amortized.

    Attributes:
        least: A lower bound of all ranks, to be looked at before `peek` is called.
    """

    def __init__(self) -> None:
        self.least = math.inf
        self._heap: list[tuple[float, int, K]] = []
        self._live: dict[K, int] = {}
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: K) -> bool:
        return key in self._live

    def __iter__(self) -> Iterator[K]:
        return iter(self._live)

    def push(self, key: K, rank: float) -> None:
        """Insert a key, or give it another rank."""
        serial = next(self._serial)
        self._live[key] = serial
        heapq.heappush(self._heap, (rank, serial, key))
        if rank < self.least:
            self.least = rank
        if len(self._heap) > 2 * len(self._live) + _SLACK:
            self._compact()

    def remove(self, key: K) -> None:
        """Remove a key if it is there."""
        if self._live.pop(key, None) is not None and (
            len(self._heap) > 2 * len(self._live) + _SLACK
        ):
            self._compact()

    def peek(self) -> tuple[K, float] | None:
        """Return the first key and its rank, or None."""
        heap, live = self._heap, self._live
        while heap:
            rank, serial, key = heap[0]
            if live.get(key) == serial:
                self.least = rank
                return key, rank
            heapq.heappop(heap)
        self.least = math.inf
        return None

    def pop(self) -> K | None:
        """Remove and return the first key, or None."""
        first = self.peek()
        if first is None:
            return None
        heapq.heappop(self._heap)
        del self._live[first[0]]
        return first[0]

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[1]]
        heapq.heapify(self._heap)
