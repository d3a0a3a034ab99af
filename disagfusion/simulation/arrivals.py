"""The jobs of a workload, drawn by seed."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.shapes import WeightedShape
from disagfusion.simulation.workload import Stream, Workload

if TYPE_CHECKING:
    from random import Random

_STEPS = 100
_PRECISION = 1e-12


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job that comes.

    Attributes:
        at: Seconds since the start.
        shape: Name of its shape.
        deviations: By which its service time in each stage is off, as a factor.
    """

    at: float
    shape: str
    deviations: tuple[float, ...]


def draw_arrivals(
    workload: Workload, stages: int, generator: Callable[[int], Random]
) -> Iterator[Arrival]:
    """Yield a workload's jobs in the order of their arrival, one by one.

    The same seeds draw the same jobs, whatever happens to them, and what comes later has no
    influence on what came before.

    Args:
        workload: Says which jobs.
        stages: How many stages a job passes.
        generator: Gives the random numbers of each stream, by its index.
    """
    streams = [
        _times(stream, generator(index)) for index, stream in enumerate(workload.arrivals, 1)
    ]
    streams.append(iter(sorted(workload.trace, key=lambda one: one[0])))
    # Regular streams meet at the same instant: the order in the file decides, on every machine.
    planned = heapq.merge(*streams, key=lambda one: one[0])
    if not workload.noise.arrival_seconds and not workload.noise.service_ratio:
        exact = (1.0,) * stages
        return (Arrival(at, shape, exact) for at, shape in planned)
    return _blur(workload, stages, planned, generator(0))


def demand_of(workload: Workload, generator: Callable[[int], Random]) -> Demand:
    """Return the mix of all jobs of a workload.

    Args:
        workload: Says which jobs.
        generator: As for `draw_arrivals`, which gives the same jobs.
    """
    counts = Counter(arrival.shape for arrival in draw_arrivals(workload, 0, generator))
    shapes = workload.shapes
    return Demand(
        shapes=tuple(
            WeightedShape(**shapes[name].model_dump(), weight=count)
            for name, count in sorted(counts.items())
        )
    )


def _blur(
    workload: Workload, stages: int, planned: Iterator[tuple[float, str]], random: Random
) -> Iterator[Arrival]:
    jitter, spread = workload.noise.arrival_seconds, workload.noise.service_ratio
    exact = (1.0,) * stages
    waiting: list[tuple[float, int, Arrival]] = []
    for number, (at, shape) in enumerate(planned):
        # None that is still to come can be moved in front of these.
        while waiting and waiting[0][0] <= at - jitter:
            yield heapq.heappop(waiting)[2]
        moved = max(0.0, at + random.uniform(-jitter, jitter)) if jitter else at
        deviations = exact
        if spread:
            deviations = tuple(1.0 + random.uniform(-spread, spread) for _ in range(stages))
        heapq.heappush(waiting, (moved, number, Arrival(moved, shape, deviations)))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _times(stream: Stream, random: Random) -> Iterator[tuple[float, str]]:
    names, bounds = list(stream.shapes), list(accumulate(stream.shapes.values()))
    for number, at in enumerate(_instants(stream, random)):
        if stream.turns:
            yield at, names[number % len(names)]
        elif len(names) == 1:
            yield at, names[0]
        else:
            yield at, random.choices(names, cum_weights=bounds)[0]


def _instants(stream: Stream, random: Random) -> Iterator[float]:
    count = math.inf if stream.count is None else stream.count
    end = math.inf if stream.end is None else stream.end
    peak = stream.peak
    if not peak:
        return
    given = 0
    if stream.process == "regular":
        for at in _regular(stream, count):
            if at >= end:
                return
            yield at
        return
    # Thinning: candidates at the highest rate, kept with the share of the rate that holds then.
    rate = Rate(stream)
    at = stream.start
    while given < count:
        at += random.expovariate(peak)
        if at >= end:
            return
        if random.random() * peak < rate.at(at - stream.start):
            yield at
            given += 1


def _regular(stream: Stream, count: float) -> Iterator[float]:
    """Yield when as many jobs were due as have come: the first at once."""
    if stream.final_rate is None and not stream.amplitude:
        every = stream.every if stream.every is not None else 1.0 / stream.peak
        number = 0
        while number < count:
            # From the start, not from the last one: no rounding adds up. `every` may be infinite.
            yield stream.start + (number * every if number else 0.0)
            number += 1
        return
    rate = Rate(stream)
    if stream.end is not None:
        count = min(count, rate.jobs(stream.end - stream.start))
    passed, number = 0.0, 0
    while number < count:
        passed = rate.when(number, passed)
        yield stream.start + passed
        number += 1


class Rate:
    """The rate of a stream, and how many jobs it makes.

    Args:
        stream: Its rate may rise or fall in a straight line, and in waves.
    """

    def __init__(self, stream: Stream) -> None:
        self._length = math.inf if stream.end is None else stream.end - stream.start
        self._base = stream.base
        self._slope = 0.0
        if stream.final_rate is not None:
            self._slope = (stream.final_rate - self._base) / self._length
        self._amplitude = stream.amplitude
        self._omega = 2 * math.pi / (stream.period or self._length)

    def at(self, passed: float) -> float:
        """Return the jobs per second so many seconds after the stream's start."""
        wave = self._amplitude * math.sin(self._omega * passed)
        return max(0.0, self._base + self._slope * passed) * (1.0 + wave)

    def jobs(self, passed: float) -> float:
        """Return how many jobs are due in so many seconds: the integral of the rate."""
        total = passed * (self._base + self._slope * passed / 2)
        if self._amplitude:
            omega, phase = self._omega, self._omega * passed
            steady = self._base * (1.0 - math.cos(phase)) / omega
            rising = self._slope * (math.sin(phase) - phase * math.cos(phase)) / omega**2
            total += self._amplitude * (steady + rising)
        return total

    def when(self, jobs: float, earliest: float) -> float:
        """Return after how many seconds so many jobs are due, not before the earliest.

        There must be so many before the stream's end.
        """
        low, step = earliest, 1.0 / (self._base + self.at(earliest) or 1.0)
        high = min(self._length, low + step)
        while high < self._length and self.jobs(high) < jobs:
            step *= 2
            low, high = high, min(self._length, high + step)
        # Newton's steps, halved where they leave the bracket, until it is as small as can be.
        guess = low
        for _ in range(_STEPS):
            excess = self.jobs(guess) - jobs
            low, high = (low, guess) if excess >= 0.0 else (guess, high)
            slope = self.at(guess)
            better = guess - excess / slope if slope else math.inf
            if not low <= better <= high:
                better = (low + high) / 2
            if abs(better - guess) <= _PRECISION * (1.0 + better):
                break
            guess = better
        return guess
