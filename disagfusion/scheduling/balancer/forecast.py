"""Which jobs are expected: those of late, going on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from disagfusion.scheduling.shapes import Shape


@dataclass(frozen=True, slots=True)
class History:
    """Arrivals within a window.

    Attributes:
        since: When the first count began.
        counts: (end of the time that was counted, shape → jobs), oldest first.
    """

    since: float | None = None
    counts: tuple[tuple[float, Mapping[Shape, int]], ...] = ()

    def add(self, arrived: Mapping[Shape, int], now: float, window: float) -> History:
        """Return the history with one more count, without what is older than the window."""
        since = self.since
        counts = (*self.counts, (now, arrived))
        while len(counts) > 1 and counts[0][0] <= now - window:
            since = counts[0][0]
            counts = counts[1:]
        return History(now if since is None else since, counts)

    def rates(self, now: float, window: float) -> dict[Shape, float]:
        """Return jobs per second by shape within a window; empty before anything was counted."""
        begin = now if self.since is None else self.since
        totals: dict[Shape, int] = {}
        for at, arrived in self.counts:
            if at <= now - window:
                begin = at
                continue
            for shape, count in arrived.items():
                totals[shape] = totals.get(shape, 0) + count
        elapsed = now - begin
        if elapsed <= 0.0:
            return {}
        return {shape: count / elapsed for shape, count in totals.items() if count}
