"""One pool: the best plan and the runner-up without any search.

For a given throughput every stage needs a certain number of replicas, and more throughput never
needs fewer. So the best throughput is found by bisection, and the plan is the smallest that has it:
no other is cheaper or has fewer accelerators, and moves have no say.
"""

from __future__ import annotations

from collections.abc import Callable

from disagfusion.scheduling.solver.program import Point
from disagfusion.scheduling.solver.ratio import Answer, Ratio


def best(ratio: Ratio) -> Answer | None:
    """Return the best plan; None if there is none. Each stage has one variable, in order."""
    point = _best(ratio, list(ratio.least), list(ratio.most))
    return None if point is None else Answer(point)


def runner_up(ratio: Ratio, answer: Answer) -> Answer | None:
    """Return the best plan with another bottleneck.

    Where there is none: the best plan with another number of replicas of the bottleneck.
    """
    if not ratio.flow(answer.point):
        return None
    slowest = ratio.bottleneck(answer.point)
    least = [max(low, 1) for low in ratio.least]
    found = [
        point
        for stage in range(len(least))
        if stage != slowest and (point := _with_bottleneck(ratio, least, stage)) is not None
    ]
    if not found:
        number = answer.point[slowest]
        fewer, more = list(ratio.most), least.copy()
        fewer[slowest] = number - 1
        more[slowest] = number + 1
        points = (_best(ratio, least, fewer), _best(ratio, more, list(ratio.most)))
        found = [point for point in points if point is not None]
    if not found:
        return None
    return Answer(min(found, key=lambda point: _rank(ratio, point)))


def _room(ratio: Ratio) -> int:
    return min(ratio.capacities[ratio.pools[0]], ratio.room)


def _rank(ratio: Ratio, point: Point) -> tuple[int, int, Point]:
    flow = ratio.flow(point)
    reached = flow if ratio.target is None else min(flow, ratio.target)
    return -reached, _taken(ratio, point), point


def _taken(ratio: Ratio, point: Point) -> int:
    return sum(a * n for a, n in zip(ratio.accelerators, point, strict=True))


def _best(ratio: Ratio, least: list[int], most: list[int | None]) -> Point | None:
    def plan(flow: int) -> Point | None:
        return _fitting(ratio, most, [_needed(ratio, least, s, flow) for s in range(len(least))])

    if ratio.target is not None and (point := plan(ratio.target)) is not None:
        return point
    return _highest(plan, min(ratio.speeds) * _room(ratio))


def _needed(ratio: Ratio, least: list[int], stage: int, flow: int) -> int:
    return max(least[stage], -(-flow // ratio.speeds[stage]))


def _fitting(ratio: Ratio, most: list[int | None], numbers: list[int]) -> Point | None:
    if _taken(ratio, tuple(numbers)) > _room(ratio):
        return None
    if any(high is not None and n > high for n, high in zip(numbers, most, strict=True)):
        return None
    return tuple(numbers)


def _with_bottleneck(ratio: Ratio, least: list[int], slowest: int) -> Point | None:
    """Return the best plan where this stage is the bottleneck: the first that has least flow."""

    def plan(number: int) -> Point | None:
        flow = number * ratio.speeds[slowest]
        numbers = [
            number if stage == slowest else _needed(ratio, least, stage, flow + (stage < slowest))
            for stage in range(len(least))
        ]
        return _fitting(ratio, list(ratio.most), numbers) if number >= least[slowest] else None

    if ratio.target is not None:
        point = plan(_needed(ratio, least, slowest, ratio.target))
        if point is not None:
            return point
    first = least[slowest]
    if plan(first) is None:
        return None
    return _highest(lambda number: plan(first + number), _room(ratio))


def _highest(plan: Callable[[int], Point | None], most: int) -> Point | None:
    """Return the plan for the greatest number, at most `most`, that has one."""
    found = plan(0)
    low, high = 0, most + 1
    while found is not None and high - low > 1:
        middle = (low + high) // 2
        point = plan(middle)
        if point is None:
            high = middle
        else:
            low, found = middle, point
    return found
