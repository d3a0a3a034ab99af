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

    def rates(self, now: float) -> dict[Shape, float]:
        """Return jobs per second by shape; empty before anything was counted."""
        elapsed = 0.0 if self.since is None else now - self.since
        if elapsed <= 0.0:
            return {}
        totals: dict[Shape, int] = {}
        for _, arrived in self.counts:
            for shape, count in arrived.items():
                totals[shape] = totals.get(shape, 0) + count
        return {shape: count / elapsed for shape, count in totals.items() if count}
