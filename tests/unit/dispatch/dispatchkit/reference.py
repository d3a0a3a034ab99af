"""The dispatcher's choice as the rules have it: everything is looked at, each time.

Nothing here is fast or remembered. What the dispatcher has learned (predictions, links) and the
moves that follow from a choice are its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from disagfusion.dispatch import policy
from disagfusion.dispatch.core import Core
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.dispatch.events import WorkerState
from disagfusion.dispatch.flow import Queue
from disagfusion.dispatch.state import TOLERANCE
from disagfusion.dispatch.tables import JobEntry
from disagfusion.dispatch.workers import WorkerEntry
from disagfusion.jobs.model import JobState, Stage, StageStatus


class ReferenceDispatcher(Dispatcher):
    """A dispatcher that looks at every queue and every worker after every event."""

    look: float | None = None

    def _decide(self) -> None:
        core = self._core
        core.settle()  # what happens to jobs that fail asks who is ready
        while any(serve(core, queue) for queue in core.jobs.queues()):
            pass
        ends = [end for queue in core.jobs.queues() for end in ends_of(core, queue)]
        self.look = min(ends) - core.horizon if ends else None

    def next_wakeup(self) -> float | None:
        timer = self._core.timers.peek()
        times = [at for at in (timer[1] if timer else None, self.look) if at is not None]
        return min(times, default=None)


@dataclass
class Candidate:
    """A worker with a free grant."""

    core: Core
    worker: WorkerEntry
    promised: float = 0.0

    @property
    def remaining(self) -> float:
        left = 0.0
        for assignment in self.worker.assignments.values():
            if assignment.end is None:
                left += assignment.seconds
            else:
                left += max(0.0, assignment.end - self.core.now)
        return left

    @property
    def known(self) -> bool:
        return all(assignment.known for assignment in self.worker.assignments.values())

    @property
    def eligible(self) -> bool:
        if not self.worker.grants:
            return False
        if not self.worker.assignments or not self.known:
            return True
        return self.remaining <= self.core.horizon + TOLERANCE

    def rank(self, job: JobEntry, promised: float = 0.0) -> tuple[float, int, int]:
        """When it would finish a job, and what breaks ties."""
        seconds = self.core.predict(job, self.worker)[0]
        begin = self.remaining + promised
        if job.source is not None:
            link = self.core.links.estimate(job.source.worker, self.worker.name, self.core.now)
            arrival = link.seconds(job.source.nbytes)
            if arrival >= 0.1 * seconds:
                begin = max(begin, arrival)
        return begin + seconds, self.worker.last_assigned, self.worker.order


def offering(core: Core, queue: Queue) -> list[WorkerEntry]:
    stage, pipeline, version = queue.lane.stage, queue.lane.flow.pipeline, queue.version
    found = [
        worker
        for worker in core.workers
        if stage in worker.info.stages
        and worker.info.pipeline == pipeline
        and version in ("", worker.info.version)
        and worker.connected
        and not worker.condemned
        and worker.info.state is WorkerState.READY
        and worker.grants
    ]
    if version:
        return found
    ready = [worker for worker in core.workers if worker.ready]
    versions = [{w.info.version for w in ready if stage in w.info.stages} for stage in Stage]
    complete = set.intersection(*versions)
    return [worker for worker in found if worker.info.version in complete] if complete else found


def closed(core: Core, queue: Queue, job: JobEntry) -> bool:
    def count(state: JobState, *statuses: StageStatus) -> int:
        return sum(
            other.state is state and other.status in (statuses or tuple(StageStatus))
            for other in core.jobs
        )

    def room(stage: Stage) -> int:
        slots = sum(worker.info.slots for worker in core.workers if stage in worker.info.stages)
        return max(2, core.settings.waiting_per_slot * slots)

    if queue.lane.stage is Stage.DIT:
        return count(JobState.DECODING, StageStatus.WAITING) >= room(Stage.DECODER)
    if queue.lane.stage is Stage.ENCODER and job.state is JobState.QUEUED:
        ahead = count(JobState.ENCODING) + count(JobState.DENOISING, StageStatus.WAITING)
        begun = sum(other.state is not JobState.QUEUED for other in core.jobs)
        return ahead >= room(Stage.DIT) or 0 < core.settings.max_in_flight <= begun
    return False


def serve(core: Core, queue: Queue) -> bool:
    """Assign what can be assigned of a queue, and return whether anything was."""
    if queue.version:
        policy._watch_version(core, queue)
    candidates = [Candidate(core, worker) for worker in offering(core, queue)]
    assigned = False
    for _, job in zip(
        range(core.settings.lookahead), [item[-1] for item in queue.items], strict=False
    ):
        if not any(candidate.eligible for candidate in candidates) or closed(core, queue, job):
            break
        source = job.source
        holder = core.workers.get(source.worker) if source else None
        if source is not None and (holder is None or not holder.connected):
            core.jobs.dequeue(job)
            core.enqueue(job, delay=0.25)
            continue
        candidates = [candidate for candidate in candidates if candidate.worker.grants]
        choice = choose(core, job, candidates)
        if choice is not None:
            core.assign(job, choice.worker)
            assigned = True
    return assigned


def choose(core: Core, job: JobEntry, candidates: list[Candidate]) -> Candidate | None:
    """The candidate that would finish first, or None when the job had better wait."""
    pool = [candidate for candidate in candidates if candidate.worker.name not in job.avoid]
    if not pool:
        pool = [candidate for candidate in candidates if not job.avoid[candidate.worker.name]]
    if not pool:
        if untried(core, job):
            return None
        pool = candidates
    eligible = [candidate for candidate in pool if candidate.eligible]
    if not eligible:
        return None
    best = min(eligible, key=lambda candidate: candidate.rank(job))
    if not (best.known and core.predict(job, best.worker)[1]):
        return best
    finish = best.rank(job)[0]
    faster = [
        candidate
        for candidate in pool
        if not candidate.eligible
        and candidate.known
        and core.predict(job, candidate.worker)[1]
        and candidate.rank(job, candidate.promised)[0] < finish
    ]
    if not faster:
        return best
    awaited = min(faster, key=lambda candidate: candidate.rank(job, candidate.promised))
    awaited.promised += core.predict(job, awaited.worker)[0]
    return None


def untried(core: Core, job: JobEntry) -> bool:
    return any(
        worker.ready
        and job.stage in worker.info.stages
        and job.version in ("", worker.info.version)
        and worker.name not in job.avoid
        for worker in core.workers
    )


def ends_of(core: Core, queue: Queue) -> list[float]:
    """When those that are busy for longer than the horizon will be free, if time brings it."""
    found = []
    for worker in offering(core, queue):
        candidate = Candidate(core, worker)
        runs = any(a.end is not None and a.end > core.now for a in worker.assignments.values())
        if runs and not candidate.eligible and candidate.remaining < math.inf:
            found.append(core.now + candidate.remaining)
    return found
