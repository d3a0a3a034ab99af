"""Whose turn it is: a pipeline is looked at when something happened, and now and then anyway."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from disagfusion.errors import DisagfusionError
from disagfusion.telemetry.logging import bound, get_logger
from disagfusion_operator.scaling.view import Key

_LEAST_GAP = 0.25
"""Between two looks at a pipeline: what happens meanwhile is seen by one."""
_FIRST_BACKOFF = 1.0
_GREATEST_BACKOFF = 60.0
_EAGER = 5.0
"""Where looks fail, what happens to a pipeline brings the next one no nearer than this."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What came of a look at a pipeline.

    Attributes:
        again: Seconds until the next one, if nothing happens; None: the pipeline is gone.
        failed: Whether it is to be tried again, ever less often.
    """

    again: float | None
    failed: bool = False


@dataclass(slots=True)
class _Item:
    due: float
    begun: float = 0.0
    running: bool = False
    woken: bool = False
    failures: int = 0
    ended: float = 0.0


class Controller:
    """Looks at pipelines, several at a time, each by one at a time.

    Args:
        look: Looks at one.
        workers: How many are looked at at a time.
        clock: Seconds that only grow.
        note: Told of every look: how long it took, and whether it failed.
    """

    def __init__(
        self,
        look: Callable[[Key], Awaitable[Look]],
        *,
        workers: int,
        clock: Callable[[], float],
        note: Callable[[float, bool], None] = lambda seconds, failed: None,
    ) -> None:
        self._look = look
        self._free = asyncio.Semaphore(workers)
        self._clock = clock
        self._note = note
        self._items: dict[Key, _Item] = {}
        self._heap: list[tuple[float, Key]] = []
        self._changed = asyncio.Event()
        self.last_end = clock()
        """When a look ended last, or the queue was found empty."""

    def __len__(self) -> int:
        return len(self._items)

    def overdue(self) -> float:
        """Return for how many seconds nothing has come of a look that should have.

        A look that goes on for ever counts. A pipeline that waits does as long as no other's look
        ends: many that wait for each other are no reason to begin anew.
        """
        now = self._clock()
        return max(
            (
                now - (item.begun if item.running else max(item.due, self.last_end))
                for item in self._items.values()
            ),
            default=0.0,
        )

    def wake(self, key: Key) -> None:
        """Look at a pipeline soon."""
        item = self._items.get(key)
        now = self._clock()
        if item is None:
            self._items[key] = _Item(now)
            self._push(now, key)
            return
        if item.running:
            item.woken = True
            return
        gap = min(self._backoff(item.failures), _EAGER) if item.failures else _LEAST_GAP
        self._schedule(key, item, max(now, item.ended + gap))

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                key = await self._next()
                await self._free.acquire()
                item = self._items[key]
                item.running, item.woken, item.begun = True, False, self._clock()
                group.create_task(self._serve(key, item))

    async def _next(self) -> Key:
        while True:
            self._changed.clear()
            now = self._clock()
            while self._heap:
                due, key = self._heap[0]
                item = self._items.get(key)
                if item is None or item.running or item.due != due:
                    heapq.heappop(self._heap)
                    continue
                if due > now:
                    break
                heapq.heappop(self._heap)
                return key
            if not self._items:
                self.last_end = now
            patience = self._heap[0][0] - now if self._heap else None
            try:
                async with asyncio.timeout(patience):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _serve(self, key: Key, item: _Item) -> None:
        begin = self._clock()
        try:
            with bound(pipeline=str(key)):
                found = await self._look(key)
        except DisagfusionError as error:
            _log.warning("look failed", pipeline=str(key), problem=error.message)
            found = Look(_GREATEST_BACKOFF, failed=True)
        except Exception:  # noqa: BLE001 - it is logged, and tried again
            # One pipeline's surprise must not keep the others from being looked after.
            _log.exception("look failed", pipeline=str(key))
            found = Look(_GREATEST_BACKOFF, failed=True)
        finally:
            self._free.release()
        now = item.ended = self.last_end = self._clock()
        self._note(now - begin, found.failed)
        item.running = False
        item.failures = item.failures + 1 if found.failed else 0
        if found.again is None and not item.woken:
            del self._items[key]
            return
        delay = found.again or 0.0
        if found.failed:
            delay = min(delay, self._backoff(item.failures))
        # Not all at the same time.
        delay *= random.uniform(0.9, 1.1)  # noqa: S311 - no secret
        if item.woken:
            delay = min(delay, _EAGER if found.failed else _LEAST_GAP)
        self._schedule(key, item, now + delay, later=True)

    def _schedule(self, key: Key, item: _Item, due: float, *, later: bool = False) -> None:
        if later or due < item.due:
            item.due = due
            self._push(due, key)

    def _push(self, due: float, key: Key) -> None:
        heapq.heappush(self._heap, (due, key))
        self._changed.set()

    def _backoff(self, failures: int) -> float:
        return min(_GREATEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures - 1, 10))
