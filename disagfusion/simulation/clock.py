"""Time that passes from event to event."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

Handler = Callable[[], None]


class Clock:
    """Calls handlers in the order of their times; at the same time, in the order of setting."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timed: list[tuple[float, int, Handler]] = []
        self._serial = itertools.count()

    def at(self, time: float, handler: Handler) -> None:
        """Call a handler at a time; the past counts as now."""
        heapq.heappush(self._timed, (max(self.now, time), next(self._serial), handler))

    def after(self, seconds: float, handler: Handler) -> None:
        """Call a handler so many seconds from now."""
        self.at(self.now + seconds, handler)

    def step(self) -> bool:
        """Go to the next event; False if there is none."""
        if not self._timed:
            return False
        self.now, _, handler = heapq.heappop(self._timed)
        handler()
        return True
