"""The work that is left: counted as it comes and goes, never summed over jobs."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from disagfusion.dispatch.estimates import Estimates
from disagfusion.jobs.model import Stage

if TYPE_CHECKING:
    from disagfusion.dispatch.events import JobSubmitted
    from disagfusion.dispatch.flow import FlowTable, Lane
    from disagfusion.dispatch.tables import Assignment


_SLACK = 64


class Running:
    """The seconds that all running assignments of a stage still take together.

    Their predicted ends are summed up; an end that has passed is taken out, so that it counts as
    nothing left and not as less. What is not counted any more leaves the heap when its time has
    come, or when the heap is built again, as in `heap`.
    """

    __slots__ = ("_count", "_heap", "_origin", "_serial", "_sum")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Assignment]] = []
        self._serial = 0
        self._count = 0
        self._sum = 0.0
        self._origin = 0.0

    def put(self, assignment: Assignment, end: float, now: float) -> None:
        """Count an assignment in, or take note that its predicted end is another."""
        if assignment.counted_end == end:
            return
        self.drop(assignment)
        heap = self._heap
        if heap and heap[0][0] <= now:
            self._expire(now)
        if not self._count:
            # Sums of large numbers lose digits, so begin anew where that is possible.
            self._sum, self._origin = 0.0, now
        if end > now:
            self._serial += 1
            assignment.counted_end, assignment.counted_as = end, self._serial
            self._count += 1
            self._sum += end - self._origin
            heapq.heappush(heap, (end, self._serial, assignment))
            if len(heap) > 2 * self._count + _SLACK:
                self._heap = [entry for entry in heap if entry[2].counted_as == entry[1]]
                heapq.heapify(self._heap)

    def drop(self, assignment: Assignment) -> None:
        """Count an assignment out if it is in."""
        end = assignment.counted_end
        if end is not None:
            assignment.counted_end, assignment.counted_as = None, 0
            self._count -= 1
            self._sum -= end - self._origin

    def remaining(self, now: float) -> float:
        """Return how many seconds are left."""
        self._expire(now)
        return max(0.0, self._sum - self._count * (now - self._origin)) if self._count else 0.0

    def _expire(self, now: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, serial, assignment = heapq.heappop(heap)
            if assignment.counted_as == serial:
                self.drop(assignment)


def backlog(flows: FlowTable, estimates: Estimates, now: float) -> dict[tuple[str, Stage], float]:
    """Return the predicted seconds of work that is left, by pipeline and stage.

    It takes O(kinds of unfinished jobs) time, and what has passed since the last call.
    """
    found = {}
    for flow in flows:
        for lane in flow.lanes:
            seconds = lane.running.remaining(now)
            for kind in flow.kinds.values():
                ahead = sum(kind.ahead[: lane.stage + 1])
                if ahead:
                    seconds += ahead * mean_seconds(lane, estimates, kind.example)
            found[flow.pipeline, lane.stage] = seconds
    return found


def mean_seconds(lane: Lane, estimates: Estimates, job: JobSubmitted) -> float:
    """Predict how long a stage of a job takes, on average over the workers that may get it.

    A worker that is twice as fast gets twice as many jobs, so this is a harmonic mean: so many
    seconds over so many workers is when a lot of such jobs are done.
    """
    workers, rate = 0, 0.0
    for group in lane.of_version(""):
        seconds, _ = estimates.service(group.estimate, job)
        if seconds <= 0.0:
            return 0.0
        workers += group.size
        rate += group.size / seconds
    return workers / rate if workers else estimates.anywhere(lane.stage, job)
