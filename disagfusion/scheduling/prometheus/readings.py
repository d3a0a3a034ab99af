"""The answers to all queries as signals, and what a balancer is told of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from disagfusion.scheduling.observation import (
    Fresh,
    Invalid,
    JobGroup,
    Missing,
    Replicas,
    Signal,
    StageLoad,
    Stale,
)
from disagfusion.scheduling.prometheus import queries
from disagfusion.scheduling.prometheus.answers import (
    Answer,
    Outcome,
    amount,
    share,
    signal,
    whole,
)
from disagfusion.scheduling.prometheus.queries import Scope
from disagfusion.scheduling.shapes import Shape, WeightedShape

T = TypeVar("T")
U = TypeVar("U")

_NOT_WAITING = ("transferring", "running")


@dataclass(frozen=True, slots=True)
class Readings:
    """Everything that Prometheus was asked, as signals.

    Attributes:
        replicas: Stage → pool → replicas; a pool that no gateway has seen is not there.
        queued: Accepted jobs that no stage has been given.
        waiting: Stage → jobs that wait for it.
        inside: Stage → jobs that it has: under way to it, or running.
        arrivals: Jobs accepted per second.
        shares: Stage → busy, starved and blocked.
        completed: Stage → assignments finished per second.
        seconds: Stage → mean seconds of those.
        reporting: Stage → replicas that have told what they did.
        backlog: Stage → pool → seconds of work that unfinished jobs have left.
    """

    replicas: Mapping[str, Mapping[str, Signal[Replicas]]]
    queued: Signal[int]
    waiting: Mapping[str, Signal[int]]
    inside: Mapping[str, Signal[int]]
    arrivals: Signal[float]
    shares: Mapping[str, Mapping[str, Signal[float]]]
    completed: Mapping[str, Signal[float]]
    seconds: Mapping[str, Signal[float]]
    reporting: Mapping[str, Signal[int]]
    backlog: Mapping[str, Mapping[str, Signal[float]]]

    def ready(self, stage: str) -> Signal[int]:
        """Return how many replicas of a stage take work, over all pools."""
        return total(
            [apply(found, lambda each: each.ready) for found in self.replicas[stage].values()]
        )

    def load(self, stage: str, completed: Signal[int]) -> StageLoad:
        """Return what the replicas of a stage did.

        Args:
            stage: Which.
            completed: Assignments finished since the last observation.
        """
        reporting = self.reporting[stage]
        seen = reporting.value if isinstance(reporting, Fresh) else 0
        ready = self.ready(stage)
        if isinstance(completed, Fresh) and isinstance(ready, Fresh) and seen < ready.value:
            # A mean of some is still a mean; a sum of some is too small.
            completed = Missing(f"{seen} of {ready.value} replicas report")
        shares = self.shares[stage]
        return StageLoad(
            busy=shares["busy"],
            starved=shares["starved"],
            blocked=shares["blocked"],
            waiting=self.waiting[stage],
            completed=completed,
            seconds=self.seconds[stage],
            reporting=seen,
        )

    def jobs(
        self, stages: Sequence[str], mix: Sequence[WeightedShape]
    ) -> Signal[tuple[JobGroup, ...]]:
        """Return the unfinished jobs, with shapes in the proportions of an expected mix.

        What metrics do not tell is set to what makes a job neither old nor half done: age and
        elapsed seconds 0.

        Args:
            stages: In the pipeline's order.
            mix: Shapes and their weights.
        """
        groups: list[JobGroup] = []
        counts: list[Signal[int]] = []
        for index, stage in enumerate(stages):
            for pool, count in {"": self.waiting[stage], **self._running(stage)}.items():
                if isinstance(count, Missing | Invalid):
                    return refused(count, f"jobs of {stage}")
                counts.append(count)
                groups += [
                    JobGroup(index, shape, number, 0.0, pool)
                    for shape, number in split(count.value, mix)
                ]
        groups.sort(key=lambda group: -group.stage)  # what is farther came earlier
        return apply(total(counts), lambda _: tuple(groups))

    def _running(self, stage: str) -> dict[str, Signal[int]]:
        """Divide the jobs of a stage among its pools as their replicas are divided."""
        inside = self.inside[stage]
        if isinstance(inside, Missing | Invalid):
            return {"running": inside}
        ready = {
            pool: found.value.ready + found.value.draining
            for pool, found in self.replicas[stage].items()
            if isinstance(found, Fresh | Stale)
        }
        ready = {pool: count for pool, count in ready.items() if count}
        if inside.value and not ready:
            return {"running": Missing("some run, and nothing is known of the replicas")}
        numbers = divide(inside.value, list(ready.values())) if ready else []
        kind = type(inside)
        return {pool: kind(n, inside.at) for pool, n in zip(ready, numbers, strict=True)}


def read(
    outcomes: Mapping[str, Outcome], stages: Sequence[str], scope: Scope, now: float
) -> Readings:
    """Return all signals.

    Args:
        outcomes: What came of each query, by its name.
        stages: In the pipeline's order.
        scope: What was asked about.
        now: When, on the clock that the signals' times are to be of.
    """

    def one(query: queries.Query, key: tuple[str, ...], convert: Callable[[float], T]) -> Signal[T]:
        return signal(outcomes[query.name], key, scope, now, convert)

    def each(query: queries.Query, convert: Callable[[float], T]) -> dict[str, Signal[T]]:
        return {stage: one(query, (stage,), convert) for stage in stages}

    queued = one(queries.QUEUED, (), whole)
    waiting = {stage: one(queries.JOBS, (stage, "waiting"), whole) for stage in stages}
    # Whoever has not been given a stage waits for the first.
    waiting[stages[0]] = total([queued, waiting[stages[0]]])
    return Readings(
        replicas={stage: _replicas(outcomes, stage, scope, now) for stage in stages},
        queued=queued,
        waiting=waiting,
        inside={
            stage: total([one(queries.JOBS, (stage, status), whole) for status in _NOT_WAITING])
            for stage in stages
        },
        arrivals=one(queries.ARRIVALS, (), amount),
        shares={
            stage: {
                state: one(queries.SHARES, (stage, state), share)
                for state in ("busy", "starved", "blocked")
            }
            for stage in stages
        },
        completed=each(queries.COMPLETED, amount),
        seconds=each(queries.SECONDS, amount),
        reporting=each(queries.REPORTING, whole),
        backlog={
            stage: {
                pool: one(queries.BACKLOG, (stage, pool), amount)
                for pool in _pools(outcomes[queries.BACKLOG.name], stage)
            }
            for stage in stages
        },
    )


def _replicas(
    outcomes: Mapping[str, Outcome], stage: str, scope: Scope, now: float
) -> dict[str, Signal[Replicas]]:
    outcome = outcomes[queries.REPLICAS.name]
    if not isinstance(outcome, Answer):
        return {"": outcome}

    def state(pool: str, name: str) -> Signal[int]:
        return signal(outcome, (stage, pool, name), scope, now, whole)

    found: dict[str, Signal[Replicas]] = {}
    for pool in _pools(outcome, stage):
        ready, loading = state(pool, "ready"), state(pool, "loading")
        draining = total([state(pool, "draining"), state(pool, "quarantined")])
        counts = [ready, loading, draining]
        if isinstance(ready, Fresh) and isinstance(loading, Fresh) and isinstance(draining, Fresh):
            replicas = Replicas(ready.value, loading.value, draining.value)
            found[pool] = Fresh(replicas, min(ready.at, loading.at, draining.at))
        else:
            found[pool] = refused(worst(counts), f"replicas of {stage} on {pool}")
    return found or {"": Missing(f"no gateway has seen a replica of {stage}")}


def _pools(outcome: Outcome, stage: str) -> list[str]:
    if not isinstance(outcome, Answer):
        return []
    return sorted({key[1] for key in outcome.keys() if key[0] == stage})


def apply(found: Signal[T], function: Callable[[T], U]) -> Signal[U]:
    """Return the signal of a function of a signal's value."""
    match found:
        case Fresh(value, at):
            return Fresh(function(value), at)
        case Stale(value, at):
            return Stale(function(value), at)
    return found


def worst(found: Sequence[Signal[T]]) -> Signal[T]:
    """Return the signal that can be acted upon least."""
    order = (Missing, Invalid, Stale, Fresh)
    return min(found, key=lambda one: order.index(type(one)))


def total(found: Sequence[Signal[int]]) -> Signal[int]:
    """Return a sum; it is no better than its worst part."""
    least = worst(found)
    if isinstance(least, Missing | Invalid):
        return least
    parts = [one for one in found if isinstance(one, Fresh | Stale)]
    kind = Fresh if isinstance(least, Fresh) else Stale
    return kind(sum(one.value for one in parts), min(one.at for one in parts))


def refused(found: Signal[T], what: str) -> Missing | Invalid:
    """Return why a signal that is not fresh cannot be acted upon."""
    if isinstance(found, Missing | Invalid):
        return type(found)(f"{what}: {found.why}")
    return Missing(f"{what}: measured too long ago")


def split(count: int, mix: Sequence[WeightedShape]) -> list[tuple[Shape, int]]:
    """Divide jobs among shapes as their weights are; shapes without a job are left out."""
    numbers = divide(count, [shape.weight for shape in mix])
    return [(shape, number) for shape, number in zip(mix, numbers, strict=True) if number]


def divide(count: int, weights: Sequence[float]) -> list[int]:
    """Divide a number by the largest remainder; ties go to the first."""
    whole_weight = math.fsum(weights)
    exact = [count * weight / whole_weight for weight in weights]
    numbers = [int(part) for part in exact]
    order = sorted(range(len(exact)), key=lambda index: numbers[index] - exact[index])
    for index in order[: count - sum(numbers)]:
        numbers[index] += 1
    return numbers


class Tally:
    """Turns rates into whole numbers over periods; fractions are kept for the next one."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}

    def add(self, name: str, rate: Signal[float], seconds: float) -> Signal[int]:
        """Return how many there were in these seconds.

        Args:
            name: Of what is counted.
            rate: Per second.
            seconds: Since the last call; 0 at the first.
        """
        if not isinstance(rate, Fresh):
            self._left.pop(name, None)
            return apply(rate, lambda value: round(value * seconds))
        exact = self._left.get(name, 0.0) + rate.value * seconds
        # Rates are quotients: 0.9999999 of a job is one.
        number = math.floor(exact + 1e-6)
        self._left[name] = exact - number
        return Fresh(number, rate.at)
