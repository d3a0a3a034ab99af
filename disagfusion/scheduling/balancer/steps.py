"""The next steps from the replicas there are to those that are wanted.

Not all of the way can be gone at once: accelerators have to get free first, and a stage goes on
working meanwhile. What is missing here is done by the next decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from disagfusion.scheduling.balancer.fleet import Room, places
from disagfusion.scheduling.decision import Move, Place
from disagfusion.scheduling.profile import Profile

_STAYING = 0.75
"""Of the replicas that a stage is to have, so many go on working while others change places."""


def toward(room: Room, profile: Profile, wanted: Mapping[Place, int]) -> tuple[Move, ...]:
    """Return the moves toward a plan that can be begun now.

    Replicas change their stage in place where they need as many accelerators, start where some are
    free, and start where others stop for them. Those that are too many stop when the ones that
    take their places are there. Minima, maxima, pools and the budget hold at every moment, and a
    stage's last replica that takes work stays.

    Args:
        room: What is free.
        profile: Stages and pools.
        wanted: Place → replicas; none where nothing is said.
    """
    counts: dict[tuple[Place | None, Place | None, bool], int] = {}
    for move in _Way(room, profile, wanted).moves():
        key = move.source, move.target, move.cancel
        counts[key] = counts.get(key, 0) + move.count
    return tuple(Move(source, target, n, cancel) for (source, target, cancel), n in counts.items())


class _Way:
    def __init__(self, room: Room, profile: Profile, wanted: Mapping[Place, int]) -> None:
        self._room = room
        self._left = room.copy()
        self._places = list(places(profile))
        self._totals = {
            stage: sum(wanted.get(place, 0) for place in self._places if place.stage == stage)
            for stage in profile.stages
        }
        self._missing = {place: wanted.get(place, 0) - room.count(place) for place in self._places}
        self._surplus = {
            place: max(0, min(-missing, room.ready(place)))
            for place, missing in self._missing.items()
        }
        self._ready = {stage: room.spare(stage) + room.least(stage) for stage in self._totals}
        self._net = dict.fromkeys(self._totals, 0)

    def moves(self) -> Iterator[Move]:
        yield from self._taken_back()
        for enough in (False, True):
            # What a stage cannot do without comes first.
            yield from self._in_place(enough)
            yield from self._started(enough)
            yield from self._paired(enough)
        yield from self._stopped()

    def _taken_back(self) -> Iterator[Move]:
        """Take back what a failed pool keeps from starting; others start in its place."""
        for place in self._places:
            stuck = min(self._room.stuck(place), -self._missing[place])
            count = min(stuck, self._room.above_minimum(place.stage) + self._net[place.stage])
            if count > 0:
                self._count(place, -count)
                self._left.give(place, count)
                yield Move(place, None, count, cancel=True)
                stuck -= count
            for target in self._places:
                if target.stage != place.stage or stuck <= 0:
                    continue
                count = min(stuck, self._missing[target])
                count = min(count, self._left.starts(target, instead=place))
                if count > 0:
                    self._left.give(place, count)
                    self._left.take(target, count)
                    self._count(place, -count)
                    self._count(target, count)
                    stuck -= count
                    yield Move(place, None, count, cancel=True)
                    yield Move(None, target, count)

    def _in_place(self, enough: bool) -> Iterator[Move]:
        for target in self._places:
            for source in self._places:
                if not self._alike(source, target) or source.stage == target.stage:
                    continue
                count = min(self._wanted(target, enough), self._leaving(source))
                if count > 0:
                    self._leave(source, count)
                    self._count(target, count)
                    yield Move(source, target, count)

    def _started(self, enough: bool) -> Iterator[Move]:
        for target in self._places:
            count = min(self._wanted(target, enough), self._left.starts(target, bounded=False))
            if count > 0:
                self._left.take(target, count)
                self._count(target, count)
                yield Move(None, target, count)

    def _paired(self, enough: bool) -> Iterator[Move]:
        for target in self._places:
            for source in self._places:
                if source == target or self._alike(source, target):
                    continue
                yield from self._pair(source, target, enough)

    def _pair(self, source: Place, target: Place, enough: bool) -> Iterator[Move]:
        """Stop some at one place, and start as many as that gives room for at another."""
        leaving = self._leaving(source)
        if leaving <= 0:
            return
        same = source.stage == target.stage
        room = self._room.below_maximum(target.stage) - self._net[target.stage]
        most = self._missing[target] if same and enough else self._wanted(target, enough)
        for count in range(most, 0, -1):
            stops = self._left.stops(target, count, source)
            if stops is None:
                continue
            if same:
                stops = max(stops, count - room)
            if 0 < stops <= leaving:
                break
        else:
            return
        self._left.swap(target, count, source, stops)
        self._leave(source, stops)
        self._count(target, count)
        if source.pool != target.pool and stops == count:
            yield Move(source, target, count)
        else:
            yield Move(source, None, stops)
            yield Move(None, target, count)

    def _stopped(self) -> Iterator[Move]:
        """Stop what is too many, as long as as many as are wanted take work without it."""
        for place in self._places:
            stage = place.stage
            keep = max(self._room.least(stage), self._totals[stage])
            count = min(self._surplus[place], self._ready[stage] - keep)
            if count > 0:
                self._leave(place, count)
                yield Move(place, None, count)

    def _wanted(self, place: Place, enough: bool) -> int:
        """Return how many may come to a place: all that are missing, or what must be."""
        committed = self._room.committed(place.stage) + self._net[place.stage]
        most = self._room.below_maximum(place.stage) - self._net[place.stage]
        if not enough:
            most = min(most, self._room.least(place.stage) - committed)
        return min(self._missing[place], most)

    def _leaving(self, place: Place) -> int:
        """Return how many may leave a place for another now."""
        total = self._totals[place.stage]
        staying = min(total - 1, math.ceil(_STAYING * total))
        keep = max(self._room.least(place.stage), staying)
        return min(self._surplus[place], self._ready[place.stage] - keep)

    def _leave(self, place: Place, count: int) -> None:
        self._surplus[place] -= count
        self._ready[place.stage] -= count
        self._count(place, -count)

    def _count(self, place: Place, by: int) -> None:
        self._missing[place] -= by
        self._net[place.stage] += by

    def _alike(self, source: Place, target: Place) -> bool:
        """Whether replicas can change from one to the other where they are."""
        same = self._room.accelerators(source) == self._room.accelerators(target)
        return same and source.pool == target.pool
