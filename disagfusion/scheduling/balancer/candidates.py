"""The changes that could be made, on one pool and across pools.

On one pool replicas change their stage in place, and start where accelerators are free. Where
stages take different numbers of accelerators, some stop and others start in their room. With
several pools that is not enough: what a stage gives away on one pool it may have to get back on
another at the same time, and each half alone would do harm. So there are three more kinds: a stop
on one pool with a start on another, two opposite changes on two pools, and all changes towards an
exact plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from disagfusion.scheduling.balancer.fleet import Room
from disagfusion.scheduling.balancer.outlook import Spot
from disagfusion.scheduling.balancer.view import View
from disagfusion.scheduling.decision import Move, Place


@dataclass(frozen=True, slots=True)
class Leg:
    """Replicas that leave one place for another.

    Attributes:
        source: Where they drain; None: they are new.
        target: Where they go.
        count: How many.
        stuck: They have been asked for at the source, and cannot start there.
        later: Thought of only: to be made when what goes before has arrived.
        stops: How many stop at the source, on the same pool, so that these can start: the two take
            different numbers of accelerators. None: each one changes its place.
    """

    source: Spot | None
    target: Spot
    count: int
    stuck: bool = False
    later: bool = False
    stops: int | None = None

    @property
    def leaving(self) -> int:
        """How many leave the source."""
        return self.count if self.stops is None else self.stops

    def moves(self, view: View) -> Iterator[Move]:
        """Yield what has to be done."""
        target = view.spots[self.target]
        source = None if self.source is None else view.spots[self.source]
        if self.stuck:
            yield Move(source, None, self.count, cancel=True)
            source = None
        elif self.stops is not None:
            yield Move(source, None, self.stops)
            source = None
        yield Move(source, target, self.count)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A change that could be made.

    Attributes:
        legs: What it is made of.
        score: What is minimized if it were made now, over what it is without any change; the
            mean over the scenarios.
    """

    legs: tuple[Leg, ...]
    score: float = math.inf

    @property
    def count(self) -> int:
        """Replicas that it moves, at most from one place."""
        return max(leg.count for leg in self.legs)

    @property
    def starts(self) -> bool:
        """Whether nothing leaves any place now."""
        return all(leg.source is None or leg.stuck for leg in self.legs if not leg.later)


class Candidates:
    """Finds changes that keep to minima, maxima, pools and the budget.

    Args:
        view: Names and indices.
        room: For more replicas.
        unit: Replicas that are moved together.
    """

    def __init__(self, view: View, room: Room, unit: int) -> None:
        self._view = view
        self._room = room
        self._unit = unit

    def single(self) -> Iterator[Candidate]:
        """Yield starts, and changes of stage within a pool, in steps that double."""
        room = self._room
        for target, place in self._view.spots.items():
            yield from self._steps(None, target, room.starts(place))
            for source in self._view.spots:
                if source[1] != target[1] or not self._in_place(source, target):
                    continue
                most = min(self._spare(source), room.below_maximum(place.stage))
                yield from self._steps(source, target, most)

    def across(self) -> Iterator[Candidate]:
        """Yield stops on one pool with starts on another, where nothing can start without."""
        room = self._room
        for target, place in self._view.spots.items():
            for source, other in self._view.spots.items():
                if source[1] == target[1]:
                    continue
                within = room.starts(place, instead=other)
                stuck = min(room.stuck(other), within)
                if other.stage != place.stage:
                    stuck = min(stuck, room.above_minimum(other.stage))
                for one in self._steps(source, target, stuck):
                    yield Candidate((replace(one.legs[0], stuck=True),))
                if room.starts(place):
                    continue
                yield from self._steps(source, target, min(self._spare(source), within))

    def swaps(self) -> Iterator[Candidate]:
        """Yield stops with starts on the same pool that need other numbers of accelerators."""
        for source, target in self._unlike():
            count = self._unit
            while (leg := self._swap(self._room, source, target, count)) is not None:
                if leg.stops:
                    yield Candidate((leg,))
                count *= 2

    def exchanges(self) -> Iterator[Candidate]:
        """Yield two opposite changes of stage on two pools."""
        for source, target in self._pairs():
            for back in range(len(self._view.pools)):
                a, b = (target[0], back), (source[0], back)
                if back == source[1] or not self._in_place(a, b):
                    continue
                most = min(self._ready(source), self._ready(a))
                for one in self._steps(source, target, most):
                    legs = (*one.legs, Leg(a, b, one.count))
                    if (found := self.checked(legs)) is not None:
                        yield found

    def toward(self, wanted: Mapping[Place, int]) -> Candidate | None:
        """Return all changes at once that lead to a plan, as far as there is room."""
        room, spots = self._room, self._view.spots
        free = room.copy()
        missing = {spot: wanted.get(place, 0) - room.count(place) for spot, place in spots.items()}
        spare = {spot: min(-missing[spot], room.ready(place)) for spot, place in spots.items()}
        stuck = {spot: room.stuck(place) for spot, place in spots.items()}
        legs: list[Leg] = []

        def match(source: Spot | None, target: Spot, most: int, of: dict[Spot, int]) -> int:
            count = max(0, min(most, missing[target]) // self._unit * self._unit)
            if count:
                legs.append(Leg(source, target, count, stuck=of is stuck))
                missing[target] -= count
            if source is not None:
                of[source] -= count
            return count

        for target in spots:
            for source in spots:
                if source[1] == target[1] and self._in_place(source, target):
                    match(source, target, spare[source], spare)
        for target, place in spots.items():
            free.take(place, match(None, target, free.starts(place), spare))
        for source, target in self._unlike():
            for count in range(missing[target] // self._unit * self._unit, 0, -self._unit):
                leg = self._swap(free, source, target, count, spare[source])
                if leg is not None and leg.stops:
                    legs.append(leg)
                    missing[target] -= count
                    spare[source] -= leg.stops
                    free.swap(spots[target], count, spots[source], leg.stops)
                    break
        for target, place in spots.items():
            for source, of in ((source, of) for of in (stuck, spare) for source in spots):
                if source[1] != target[1]:
                    other = spots[source]
                    count = min(of[source], free.starts(place, instead=other))
                    count = match(source, target, count, of)
                    free.give(other, count)
                    free.take(place, count)
        return self.checked(legs) if legs else None

    def together(self, one: Candidate, other: Candidate) -> Candidate | None:
        """Return two changes as one, if they do not need the same replicas or room."""
        targets = {leg.target for leg in one.legs} | {leg.target for leg in other.legs}
        sources = {leg.source for leg in one.legs} | {leg.source for leg in other.legs}
        if targets & sources:
            return None
        legs: dict[tuple[Spot | None, Spot, bool], Leg] = {}
        for leg in (*one.legs, *other.legs):
            key = leg.source, leg.target, leg.stuck
            count, stops = leg.count, leg.stops
            if key in legs:
                count += legs[key].count
                stops = None if stops is None else stops + legs[key].leaving
            legs[key] = replace(leg, count=count, later=False, stops=stops)
        return self.checked(tuple(legs.values()))

    def checked(self, legs: Sequence[Leg]) -> Candidate | None:
        """Return a change that everything allows, or None.

        A stage that would be left without replicas gets those that come before it gives away those
        it has: that second step is left for later.
        """
        room, spots = self._room, self._view.spots
        left = room.copy()
        leaving: dict[tuple[Spot, bool], int] = {}
        for leg in legs:
            place = spots[leg.target]
            other = None if leg.source is None else spots[leg.source]
            if leg.source is not None:
                key = leg.source, leg.stuck
                leaving[key] = leaving.get(key, 0) + leg.leaving
            if leg.stops is not None:
                assert other is not None, "others stop somewhere"
                needed = left.stops(place, leg.count, other)
                if needed is None or needed > leg.stops:
                    return None
                left.swap(place, leg.count, other, leg.stops)
            elif other is None or other.pool != place.pool:
                if left.starts(place, instead=other, bounded=False) < leg.count:
                    return None
                if other is not None:
                    left.give(other, leg.count)
                left.take(place, leg.count)
        for (spot, stuck), count in leaving.items():
            if count > (room.stuck(spots[spot]) if stuck else room.ready(spots[spot])):
                return None
        net: dict[str, int] = {}
        for leg in legs:
            net[spots[leg.target].stage] = net.get(spots[leg.target].stage, 0) + leg.count
            if leg.source is not None:
                stage = spots[leg.source].stage
                net[stage] = net.get(stage, 0) - leg.leaving
        if any(more > room.below_maximum(stage) for stage, more in net.items() if more > 0):
            return None
        if any(-more > room.above_minimum(stage) for stage, more in net.items() if more < 0):
            return None
        return self._in_turn(legs)

    def _in_turn(self, legs: Sequence[Leg]) -> Candidate | None:
        """Leave for later what would take a stage's last replicas; None if nothing is left."""
        spare = {stage: self._room.spare(stage) for stage in self._view.stages}
        ordered = []
        for leg in legs:
            at_once = leg.count
            if leg.source is not None and not leg.stuck:
                stage = self._view.stages[leg.source[0]]
                if leg.stops is not None:
                    spare[stage] -= leg.stops
                    ordered.append(leg)
                    if spare[stage] < 0:
                        return None
                    continue
                at_once = min(leg.count, spare[stage]) // self._unit * self._unit
                spare[stage] -= at_once
            parts = ((at_once, False), (leg.count - at_once, True))
            ordered += [replace(leg, count=n, later=later) for n, later in parts if n]
        return None if all(leg.later for leg in ordered) else Candidate(tuple(ordered))

    def _pairs(self) -> Iterator[tuple[Spot, Spot]]:
        """Yield places whose stages could change in place, the earlier stage first."""
        for source in self._view.spots:
            for target in self._view.spots:
                if source[1] == target[1] and source[0] < target[0]:
                    if self._in_place(source, target):
                        yield source, target

    def _in_place(self, source: Spot, target: Spot) -> bool:
        spots = self._view.spots
        if source not in spots or target not in spots or source[0] == target[0]:
            return False
        return self._room.accelerators(spots[source]) == self._room.accelerators(spots[target])

    def _unlike(self) -> Iterator[tuple[Spot, Spot]]:
        """Yield places on one pool whose replicas take different numbers of accelerators."""
        for source in self._view.spots:
            for target in self._view.spots:
                if source[1] == target[1] and source[0] != target[0]:
                    if not self._in_place(source, target):
                        yield source, target

    def _swap(
        self, room: Room, source: Spot, target: Spot, count: int, most: int | None = None
    ) -> Leg | None:
        """Return starts with the stops that they need; None if there are not so many to spare."""
        place, other = self._view.spots[target], self._view.spots[source]
        stops = room.stops(place, count, other)
        spare = self._spare(source) if most is None else min(most, self._spare(source))
        if stops is None or stops > spare or count > self._room.below_maximum(place.stage):
            return None
        return Leg(source, target, count, stops=stops)

    def _spare(self, spot: Spot) -> int:
        """Return how many replicas may leave a place now."""
        place = self._view.spots[spot]
        return min(self._room.ready(place), self._room.spare(place.stage))

    def _ready(self, spot: Spot) -> int:
        return self._room.ready(self._view.spots[spot])

    def _steps(self, source: Spot | None, target: Spot, most: int) -> Iterator[Candidate]:
        count = self._unit
        while count <= most:
            yield Candidate((Leg(source, target, count),))
            count *= 2
