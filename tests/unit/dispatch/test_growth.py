"""A decision costs O(log n): counted, not timed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from dispatchkit.desk import D, Desk, E

import disagfusion.dispatch
from benchmarks.dispatch import Fleet
from disagfusion.dispatch import events as ev
from disagfusion.dispatch.groups import EXAMINED
from disagfusion.dispatch.ordered import Ordered
from disagfusion.dispatch.settings import DispatchSettings, QueueOrder

PACKAGE = str(Path(disagfusion.dispatch.__file__).parent)
TRACED = 600


class Counted:
    """A number that counts how often it is compared."""

    comparisons = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __lt__(self, other: Counted) -> bool:
        Counted.comparisons += 1
        return self.value < other.value

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return isinstance(other, Counted) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


def comparisons(act: Callable[[], object]) -> int:
    Counted.comparisons = 0
    act()
    return Counted.comparisons


def dearest(size: int) -> int:
    """Return the most comparisons that anything takes in an order of so many items."""
    ordered: Ordered[tuple[Counted]] = Ordered()
    for number in range(size):
        ordered.add((Counted(2 * number),))
    middle = (Counted(size + 1),)
    return max(
        comparisons(lambda: ordered.add(middle)),
        comparisons(lambda: ordered.remove(middle)),
        comparisons(lambda: ordered.before(middle)),
        comparisons(lambda: ordered.since(middle, 16)),
    )


def test_an_order_compares_log_n_items() -> None:
    # Each comparison of tuples looks for the first difference, and then which is less.
    for exponent in (6, 10, 15):
        assert dearest(2**exponent) <= 2 * (2 * exponent + 2)


def lines_executed(act: Callable[[], object]) -> int:
    """Count the lines of the dispatcher that are executed meanwhile."""
    lines = 0

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        lines += what == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return lines


def cost(workers: int, order: QueueOrder) -> tuple[float, float]:
    """Return the lines executed for an event, and the workers looked at for an assignment."""
    fleet = Fleet(workers, 3 * workers, DispatchSettings(queue_order=order))
    while fleet.ended < workers:
        fleet.step()
    begin = len(fleet.told)

    def go_on() -> None:
        while len(fleet.told) < begin + TRACED:
            fleet.step()

    lines = lines_executed(go_on)
    return lines / (len(fleet.told) - begin), fleet.dispatcher.examined / fleet.assignments


@pytest.mark.parametrize("order", ["submission", "shortest"])
def test_a_decision_costs_no_more_in_a_large_fleet(order: QueueOrder) -> None:
    small_lines, small_examined = cost(96, order)
    large_lines, large_examined = cost(640, order)
    assert large_lines < 1.4 * small_lines
    assert max(small_examined, large_examined) < 2 * EXAMINED


def cost_beside(idle: int) -> int:
    """Return the lines executed for twenty assignments with so many idle workers."""
    desk = Desk(DispatchSettings(waiting_per_slot=8))
    desk.connect("e", E, slots=64)
    for number in range(idle):
        info = replace(desk.info(f"d{number}", D), pool="x")
        grants = (f"d{number}/a", f"d{number}/b")
        desk.give(ev.WorkerConnected(info, (), (), grants))
    for number in range(20):
        desk.submit(f"j{number}")
    return lines_executed(lambda: [desk.encode(f"j{number}") for number in range(20)])


def test_many_idle_workers_cost_no_more_than_a_few() -> None:
    assert cost_beside(500) < 1.2 * cost_beside(20)
