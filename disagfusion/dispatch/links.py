"""How long tensors take from one worker to another: latency and bandwidth of each link."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

# Some fourteen observations count; the older the less.
_FORGETTING = 0.93
_MAX_LINKS = 4096
_MAX_ENDS = 32768
# Of the usual time from a sender; how many receivers are remembered that are so near.
_NEAR = 0.5
_MAX_NEAR = 8
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


_UNLIMITED = LinkEstimate(0.0, 0.0)


class _Line:
    """A least-squares line through (bytes, seconds); older observations count less."""

    __slots__ = ("_known", "_weight", "_x", "_xx", "_xy", "_y", "observed")

    def __init__(self) -> None:
        self.observed = 0.0
        self._known: LinkEstimate | None = None
        self._weight = 0.0
        self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, x: float, y: float, now: float) -> None:
        self.observed = now
        self._known = None
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
        if self._known is None:
            self._known = self._fit()
        return self._known

    def _fit(self) -> LinkEstimate:
        if self._x <= 0.0:
            return LinkEstimate(self._y, 0.0)
        proportional = self._y / self._x
        if self._xx < (_MIN_SPREAD * self._x) ** 2:
            return LinkEstimate(0.0, proportional)
        # Neither can be negative: then the line goes through the origin, or is level.
        slope = min(max(0.0, self._xy / self._xx), proportional)
        return LinkEstimate(max(0.0, self._y - slope * self._x), slope)


class Links:
    """What was learned about links from the inputs that arrived.

    A prediction falls back from the link itself to all that leads to its receiver, to all that
    comes from its sender, to everything.
    """

    def __init__(self) -> None:
        self._pairs: OrderedDict[tuple[str, str], _Line] = OrderedDict()
        self._ends: OrderedDict[tuple[str, str], _Line] = OrderedDict()
        self._near: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._all: _Line | None = None

    def observe(self, sender: str, receiver: str, nbytes: int, seconds: float, now: float) -> None:
        """Take note of how long an input took from its first byte until it was verified."""
        if not 0.0 <= seconds < math.inf or nbytes < 0:
            return
        usual = self._ends.get((sender, ""))
        self._note_near(sender, receiver, usual, nbytes, seconds)
        for lines, key, bound in (
            (self._pairs, (sender, receiver), _MAX_LINKS),
            (self._ends, ("", receiver), _MAX_ENDS),
            (self._ends, (sender, ""), _MAX_ENDS),
        ):
            line = lines.get(key)
            if line is None:
                line = lines[key] = _Line()
                if len(lines) > bound:
                    lines.popitem(last=False)
            else:
                lines.move_to_end(key)
            line.observe(nbytes, seconds, now)
        if self._all is None:
            self._all = _Line()
        self._all.observe(nbytes, seconds, now)

    def estimate(self, sender: str, receiver: str, now: float) -> LinkEstimate:
        """Return a link's latency and bandwidth; both unlimited before the first observation."""
        oldest = now - _MEMORY_SECONDS
        line = self._pairs.get((sender, receiver))
        if line is None or line.observed < oldest:
            line = self._ends.get(("", receiver))
            if line is None or line.observed < oldest:
                line = self._ends.get((sender, ""))
                if line is None or line.observed < oldest:
                    line = self._all
                    if line is None or line.observed < oldest:
                        return _UNLIMITED
        return line.estimate

    def near(self, sender: str) -> list[str]:
        """Return a few receivers that a sender has reached much sooner than it does on average."""
        return list(self._near.get(sender, ()))

    def _note_near(
        self, sender: str, receiver: str, usual: _Line | None, nbytes: int, seconds: float
    ) -> None:
        near = self._near.get(sender)
        if usual is None or seconds > _NEAR * usual.estimate.seconds(nbytes):
            if near is not None:
                near.pop(receiver, None)
            return
        if near is None:
            near = self._near[sender] = OrderedDict()
            if len(self._near) > _MAX_ENDS:
                self._near.popitem(last=False)
        near[receiver] = None
        near.move_to_end(receiver)
        if len(near) > _MAX_NEAR:
            near.popitem(last=False)
