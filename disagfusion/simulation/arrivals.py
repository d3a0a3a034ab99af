"""The jobs of a workload, drawn by seed."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.shapes import WeightedShape
from disagfusion.simulation.workload import Stream, Workload

if TYPE_CHECKING:
    from random import Random


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
    names, weights = list(stream.shapes), list(stream.shapes.values())
    for number, at in enumerate(_instants(stream, random)):
        if stream.turns:
            yield at, names[number % len(names)]
        elif len(names) == 1:
            yield at, names[0]
        else:
            yield at, random.choices(names, weights)[0]


def _instants(stream: Stream, random: Random) -> Iterator[float]:
    count = math.inf if stream.count is None else stream.count
    end = math.inf if stream.end is None else stream.end
    given = 0
    if stream.process == "regular":
        at = stream.start
        while given < count and at < end:
            yield at
            given += 1
            at = _regular(stream, at, given)
        return
    # Thinning: candidates at the highest rate, kept with the share of the rate that holds then.
    at = stream.start
    while given < count:
        at += random.expovariate(stream.peak) if stream.peak else math.inf
        if at >= end:
            return
        if random.random() * stream.peak < _rate(stream, at):
            yield at
            given += 1


def _regular(stream: Stream, at: float, given: int) -> float:
    if stream.final_rate is None and not stream.amplitude:
        # From the start, not from the last one: no rounding adds up.
        every = stream.every if stream.every is not None else 1.0 / stream.peak
        return stream.start + given * every
    return at + 1.0 / max(_rate(stream, at), 1e-9)


def _rate(stream: Stream, at: float) -> float:
    base = 1.0 / stream.every if stream.every is not None else (stream.rate or 0.0)
    if stream.final_rate is not None and stream.end is not None:
        share = (at - stream.start) / (stream.end - stream.start)
        base += share * (stream.final_rate - base)
    if stream.amplitude:
        period = stream.period or (stream.end or at) - stream.start
        base *= 1.0 + stream.amplitude * math.sin(2 * math.pi * (at - stream.start) / period)
    return base
