"""Which jobs are expected: those of late, going on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from disagfusion.scheduling.shapes import Shape


@dataclass(frozen=True, slots=True)
class History:
    """Arrivals within a window.

    Time in which nobody counted is cut out: what was counted before it moves up to now.

    Attributes:
        since: When the first count began.
        counts: (end of the time that was counted, shape → jobs), oldest first.
        until: Until when somebody counted; None: until now.
    """

    since: float | None = None
    counts: tuple[tuple[float, Mapping[Shape, int]], ...] = ()
    until: float | None = None

    def add(self, arrived: Mapping[Shape, int], now: float, window: float) -> History:
        """Return the history with one more count, without what is older than the window."""
        if self.until is not None:
            # For how long this count stands, nobody can say.
            resumed = self.without(now, window)
            return History(now if resumed.since is None else resumed.since, resumed.counts)
        since = self.since
        counts = (*self.counts, (now, arrived))
        while len(counts) > 1 and counts[0][0] <= now - window:
            since = counts[0][0]
            counts = counts[1:]
        return History(now if since is None else since, counts)

    def without(self, now: float, window: float) -> History:
        """Return the history as if no time had passed since the last count.

        Nothing is left of it if nobody has counted for a window.
        """
        if self.since is None:
            return self
        last = self.counts[-1][0] if self.counts else self.since
        until = last if self.until is None else self.until
        if now - until > window:
            return History()
        by = now - last
        return History(self.since + by, tuple((at + by, one) for at, one in self.counts), until)

    def covers(self, now: float, window: float) -> bool:
        """Whether somebody has counted for a window."""
        return self.since is not None and now - self.since >= window

    def rates(self, now: float, window: float, sigmas: float = math.inf) -> dict[Shape, float]:
        """Return jobs per second by shape within a window; empty before anything was counted.

        Args:
            now: Seconds.
            window: Seconds.
            sigmas: The window is cut where jobs of a shape came at another rate before than since,
                if that is as unlikely to be chance as so many standard deviations.
        """
        begin = now if self.since is None else self.since
        counted: list[tuple[float, Mapping[Shape, int]]] = []
        for at, arrived in self.counts:
            if at <= now - window:
                begin = at
            else:
                counted.append((at, arrived))
        begin, counted = _since_shift(begin, counted, sigmas)
        totals = _sums(arrived for _, arrived in counted)
        elapsed = now - begin
        if elapsed <= 0.0:
            return {}
        return {shape: count / elapsed for shape, count in totals.items() if count}


def _since_shift(
    begin: float, counted: list[tuple[float, Mapping[Shape, int]]], sigmas: float
) -> tuple[float, list[tuple[float, Mapping[Shape, int]]]]:
    """Leave out the time before the likeliest shift, again and again as long as there is one."""
    while not math.isinf(sigmas):
        shifts = list(_shifts(begin, counted))
        surest = max(shifts, default=0.0)
        if surest <= sigmas:
            break
        cut = shifts.index(surest) + 1
        begin, counted = counted[cut - 1][0], counted[cut:]
    return begin, counted


def _shifts(begin: float, counted: Sequence[tuple[float, Mapping[Shape, int]]]) -> Iterator[float]:
    """Yield, for each time between two counts, how sure it is that the rates changed then."""
    old: dict[Shape, int] = {}
    totals = _sums(arrived for _, arrived in counted)
    for middle, arrived in counted[:-1]:
        old = _sums((old, arrived))
        before, since = middle - begin, counted[-1][0] - middle
        if before <= 0.0 or since <= 0.0:
            yield 0.0
            continue
        yield max(
            (
                _differ(old.get(shape, 0), before, total - old.get(shape, 0), since)
                for shape, total in totals.items()
            ),
            default=0.0,
        )


def _differ(old: int, before: float, new: int, since: float) -> float:
    """Return how unlikely it is that two numbers come of one rate, in standard deviations.

    The root of twice the logarithm of the ratio of likelihoods (Wilks): unlike the difference over
    its deviation it is not far off where jobs are few, and a single rare one is no shift.
    """
    total = old + new
    ratio = 0.0
    for count, seconds in ((old, before), (new, since)):
        if count:
            ratio += count * math.log(count * (before + since) / (total * seconds))
    return math.sqrt(2.0 * max(0.0, ratio))


def _sums(counts: Iterable[Mapping[Shape, int]]) -> dict[Shape, int]:
    totals: dict[Shape, int] = {}
    for arrived in counts:
        for shape, count in arrived.items():
            totals[shape] = totals.get(shape, 0) + count
    return totals
