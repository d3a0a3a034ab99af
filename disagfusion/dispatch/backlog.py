"""The work that is left: jobs are counted as they come and go, and never summed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disagfusion.dispatch.estimates import Estimates
from disagfusion.jobs.model import Stage

if TYPE_CHECKING:
    from disagfusion.dispatch.events import JobSubmitted
    from disagfusion.dispatch.flow import FlowTable, Lane
    from disagfusion.dispatch.workers import WorkerTable


def backlog(
    flows: FlowTable, workers: WorkerTable, estimates: Estimates, now: float
) -> dict[tuple[str, Stage], float]:
    """Return the predicted seconds of work that is left, by pipeline and stage.

    It takes O(workers, and kinds of unfinished jobs) time.
    """
    running: dict[tuple[str, Stage], float] = {}
    for worker in workers:
        for assignment in worker.assignments.values():
            end = assignment.end
            # What is late counts as nothing left, and not as less.
            if end is not None and end > now:
                key = (worker.info.pipeline, assignment.stage)
                running[key] = running.get(key, 0.0) + end - now
    found = {}
    for flow in flows:
        for lane in flow.lanes:
            seconds = running.get((flow.pipeline, lane.stage), 0.0)
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
