"""Items in ascending order, of which any can be removed."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=tuple[Any, ...])

_BLOCK = 256


class Ordered(Generic[T]):
    """Distinct tuples in ascending order.

    They stand in blocks of at most 512. Adding, removing and finding one compares O(log n) items
    and moves at most a block of references; counting those before one adds up the blocks' lengths.

    Attributes:
        size: How many there are; the same as `len`, and sooner found.
        least: The least first element; infinite where there is nothing.
    """

    __slots__ = ("_blocks", "_lasts", "least", "size")

    def __init__(self) -> None:
        self.least: float = math.inf
        self._blocks: list[list[T]] = []
        self._lasts: list[T] = []
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[T]:
        for block in self._blocks:
            yield from block

    def add(self, item: T) -> None:
        """Insert an item that is not there."""
        self.size += 1
        lasts = self._lasts
        if not lasts:
            self._blocks.append([item])
            lasts.append(item)
            self.least = item[0]
            return
        if item[0] < self.least:
            self.least = item[0]
        if item > lasts[-1]:
            index = len(lasts) - 1
            block = self._blocks[index]
            block.append(item)
            lasts[index] = item
        else:
            index = bisect_left(lasts, item)
            block = self._blocks[index]
            insort(block, item)
        if len(block) > 2 * _BLOCK:
            self._blocks.insert(index + 1, block[_BLOCK:])
            del block[_BLOCK:]
            lasts.insert(index, block[-1])

    def remove(self, item: T) -> None:
        """Remove an item.

        Raises:
            KeyError: It is not there.
        """
        if self._blocks and self._blocks[0][0] == item:
            # Mostly it is the first.
            index = place = 0
            block = self._blocks[0]
        else:
            index, block, place = self._find(item)
        del block[place]
        self.size -= 1
        if not block:
            del self._blocks[index], self._lasts[index]
            if not index:
                self.least = self._blocks[0][0][0] if self._blocks else math.inf
            return
        if not place and not index:
            self.least = block[0][0]
        if place == len(block):
            self._lasts[index] = block[-1]
        if len(block) < _BLOCK // 4 and index + 1 < len(self._blocks):
            self._join(index)

    def _find(self, item: T) -> tuple[int, list[T], int]:
        index = bisect_left(self._lasts, item)
        block = self._blocks[index] if index < len(self._blocks) else []
        place = bisect_left(block, item)
        if place == len(block) or block[place] != item:
            raise KeyError(item)
        return index, block, place

    def first(self) -> T | None:
        """Return the least item, or None."""
        return self._blocks[0][0] if self._blocks else None

    def at(self, index: int) -> T:
        """Return the item that so many are less than; meant for small numbers.

        Raises:
            IndexError: There are not so many.
        """
        for block in self._blocks:
            if index < len(block):
                return block[index]
            index -= len(block)
        raise IndexError(index)

    def head(self, count: int) -> list[T]:
        """Return the first items."""
        if not self._blocks:
            return []
        found = self._blocks[0][:count]
        for block in self._blocks[1:]:
            if len(found) >= count:
                break
            found += block[: count - len(found)]
        return found

    def before(self, bound: tuple[Any, ...]) -> int:
        """Return how many items are less than a bound."""
        index = bisect_left(self._lasts, bound)
        found = sum([len(block) for block in self._blocks[:index]])
        return found + (bisect_left(self._blocks[index], bound) if index < len(self._lasts) else 0)

    def upto(self, bound: tuple[Any, ...], count: int) -> list[T]:
        """Return the first items that are less than a bound, at most so many."""
        found = self.head(count)
        if found and not found[-1] < bound:
            del found[bisect_left(found, bound) :]
        return found

    def since(self, bound: tuple[Any, ...], count: int) -> list[T]:
        """Return the first items that are not less than a bound, at most so many."""
        index = bisect_left(self._lasts, bound)
        if index == len(self._lasts):
            return []
        block = self._blocks[index]
        start = bisect_left(block, bound)
        found = block[start : start + count]
        for block in self._blocks[index + 1 :]:
            if len(found) >= count:
                break
            found += block[: count - len(found)]
        return found

    def _join(self, index: int) -> None:
        """Join a block that became short to the one behind it, if the two are not too long."""
        block, behind = self._blocks[index], self._blocks[index + 1]
        if len(block) + len(behind) <= 2 * _BLOCK:
            block += behind
            self._lasts[index] = block[-1]
            del self._blocks[index + 1], self._lasts[index + 1]
