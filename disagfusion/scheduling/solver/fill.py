"""A plan with as many accelerators as another one, so that the two can be compared."""

from __future__ import annotations

from disagfusion.scheduling.solver.program import Point, dot
from disagfusion.scheduling.solver.ratio import Ratio


def filled(ratio: Ratio, point: Point, like: Point) -> Point:
    """Give a plan's slower stages what another plan uses beyond it and what costs nothing.

    Neither throughput nor bottleneck, cost, or who uses which pools changes by that.

    Args:
        ratio: The problem.
        point: The plan.
        like: A plan with at least as many accelerators.
    """
    numbers = list(point)
    slowest = ratio.bottleneck(point)
    flows = [dot(row, point) for row in ratio.flows]
    free = list(ratio.capacities)
    for j, number in enumerate(numbers):
        free[ratio.pools[j]] -= number * ratio.accelerators[j]
    left = dot(ratio.accelerators, like) - dot(ratio.accelerators, point)
    growing = True
    while growing:
        growing = False
        for stage in sorted(range(len(flows)), key=flows.__getitem__):
            more = None if stage == slowest else _place(ratio, numbers, stage, free, left)
            if more is not None:
                numbers[more] += 1
                flows[stage] += ratio.speeds[more]
                free[ratio.pools[more]] -= ratio.accelerators[more]
                left -= ratio.accelerators[more]
                growing = True
                break
    return tuple(numbers)


def _place(ratio: Ratio, numbers: list[int], stage: int, free: list[int], left: int) -> int | None:
    own = [j for j, one in enumerate(ratio.stages) if one == stage]
    most = ratio.most[stage]
    if most is not None and sum(numbers[j] for j in own) >= most:
        return None
    fitting = (
        j
        for j in own
        if numbers[j]
        and not ratio.costs[j]
        and ratio.accelerators[j] <= min(left, free[ratio.pools[j]])
    )
    return max(fitting, key=lambda j: (ratio.speeds[j], -j), default=None)
