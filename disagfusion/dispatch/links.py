"""How long tensors take from one worker to another: latency and bandwidth of each link."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

# Some fourteen observations count; the older the less.
_FORGETTING = 0.93
_MAX_LINKS = 4096
# Then a link counts as unknown, and so is tried again whatever it was like.
_MEMORY_SECONDS = 60.0
# Sizes that differ less than this share of their mean tell nothing about a bandwidth.
_MIN_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """A link as a straight line: seconds = latency + bytes * seconds_per_byte."""

    latency: float
    seconds_per_byte: float

    def seconds(self, nbytes: int) -> float:
        """Return how long so many bytes take."""
        return self.latency + nbytes * self.seconds_per_byte


class _Line:
    """A least-squares line through (bytes, seconds); older observations count less."""

    def __init__(self) -> None:
        self.observed = 0.0
        self._weight = 0.0
        self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, x: float, y: float, now: float) -> None:
        self.observed = now
        self._weight = _FORGETTING * self._weight + 1.0
        share = 1.0 / self._weight
        dx, dy = x - self._x, y - self._y
        self._x += share * dx
        self._y += share * dy
        # Central moments, as means: large sizes would cancel each other's digits otherwise.
        self._xx = (1.0 - share) * (self._xx + share * dx * dx)
        self._xy = (1.0 - share) * (self._xy + share * dx * dy)

    @property
    def estimate(self) -> LinkEstimate:
        if self._x <= 0.0:
            return LinkEstimate(self._y, 0.0)
        proportional = self._y / self._x
        if self._xx < (_MIN_SPREAD * self._x) ** 2:
            return LinkEstimate(0.0, proportional)
        # Neither can be negative: then the line goes through the origin, or is level.
        slope = min(max(0.0, self._xy / self._xx), proportional)
        return LinkEstimate(self._y - slope * self._x, slope)


class Links:
    """What was learned about links from the inputs that arrived.

    A prediction falls back from the link itself to all that leads to its receiver, to all that
    comes from its sender, to everything.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[tuple[str, str], _Line] = OrderedDict()

    def observe(self, sender: str, receiver: str, nbytes: int, seconds: float, now: float) -> None:
        """Take note of how long an input took from its first byte until it was verified."""
        if not 0.0 <= seconds < math.inf or nbytes < 0:
            return
        for key in _keys(sender, receiver):
            line = self._lines.setdefault(key, _Line())
            line.observe(nbytes, seconds, now)
            self._lines.move_to_end(key)
        while len(self._lines) > _MAX_LINKS:
            self._lines.popitem(last=False)

    def estimate(self, sender: str, receiver: str, now: float) -> LinkEstimate:
        """Return a link's latency and bandwidth; both unlimited before the first observation."""
        for key in _keys(sender, receiver):
            line = self._lines.get(key)
            if line is not None and now - line.observed <= _MEMORY_SECONDS:
                return line.estimate
        return LinkEstimate(0.0, 0.0)


def _keys(sender: str, receiver: str) -> tuple[tuple[str, str], ...]:
    return (sender, receiver), ("", receiver), (sender, ""), ("", "")
