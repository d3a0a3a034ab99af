"""Where jobs and workers of one pipeline meet: by stage and by model version."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disagfusion.dispatch.events import JobSubmitted
from disagfusion.dispatch.groups import Group, Member
from disagfusion.dispatch.ordered import Ordered
from disagfusion.jobs.model import JobState, Stage, StageStatus

if TYPE_CHECKING:
    from disagfusion.dispatch.tables import JobEntry

WaitingJob = tuple[bool, int, float, int, "JobEntry"]
"""Whether it is new, its priority times -1, its seconds if they count, its rank of submission."""

_STATES = len(JobState) + 1
_STATUSES = len(StageStatus)
_ENCODING = JobState.ENCODING * _STATUSES
_DENOISING = JobState.DENOISING * _STATUSES
_DECODING = JobState.DECODING * _STATUSES
"""Where in a table by state and status those are that wait for the stage; the statuses of a state
follow one another, WAITING first."""


class Queue:
    """Jobs that can take one another's place: of one stage, pipeline and pinned version.

    Attributes:
        lane: Of the stage.
        version: Pinned; empty: any.
        items: The jobs, in the order in which they are served.
        rank: Of this queue among others, the first to be served least.
        look: The time that the agenda has for it.
        awaited: Busy workers for which jobs wait, and the free ones they had better not take.
        wary: Whether jobs wait for others than those that failed them.
        enough: While no more jobs than this wait, they had better wait, whoever is free.
        missing_since: Since when no worker of its version takes work, as far as a timer runs
            because of that.
    """

    __slots__ = (
        "awaited",
        "enough",
        "items",
        "lane",
        "look",
        "missing_since",
        "rank",
        "version",
        "wary",
    )

    def __init__(self, lane: Lane, version: str) -> None:
        self.lane = lane
        self.version = version
        self.items: Ordered[WaitingJob] = Ordered()
        self.rank = (-int(lane.stage), lane.flow.pipeline, not version, version)
        self.look: float | None = None
        self.awaited: Collection[Member] = ()
        self.wary = False
        self.enough = 0.0
        self.missing_since: float | None = None


class Lane:
    """One stage of a pipeline.

    Attributes:
        flow: The pipeline.
        stage: The stage.
        before: The stage in front of it.
        queues: Who waits, by pinned version.
        groups: Who works, by version and pool.
        slots: Input slots of all workers.
        workers: How many do this stage.
    """

    __slots__ = ("before", "flow", "groups", "queues", "slots", "stage", "workers")

    def __init__(self, flow: Flow, stage: Stage) -> None:
        self.flow = flow
        self.stage = stage
        self.before = None if stage is Stage.ENCODER else Stage(stage - 1)
        self.queues: dict[str, Queue] = {}
        self.groups: dict[str, dict[str, Group]] = {}
        self.slots = 0
        self.workers = 0

    def queue(self, version: str) -> Queue:
        """Return the queue of a pinned version; it is made where there is none."""
        queue = self.queues.get(version)
        if queue is None:
            queue = self.queues[version] = Queue(self, version)
        return queue

    def of_version(self, version: str) -> Iterator[Group]:
        """Iterate over the groups of a version, or over all where that is empty."""
        if version:
            yield from self.groups.get(version, {}).values()
        else:
            for groups in self.groups.values():
                yield from groups.values()

    def is_ready(self, version: str) -> bool:
        """Whether any worker of a version, or any at all where that is empty, takes work."""
        return any(group.ready for group in self.of_version(version))

    def offering(self, version: str) -> list[Group]:
        """Return the groups of which a worker could be given a job of a version now or later.

        Where any version would do, and there are some that have all stages, it is one of those: the
        first assignment pins the version.
        """
        if len(self.groups) == 1:
            for alone, groups in self.groups.items():
                if version in ("", alone):
                    return [group for group in groups.values() if group.offering]
            return []
        found = [group for group in self.of_version(version) if group.offering]
        if version:
            return found
        complete = [name for name in self.groups if self.flow.is_complete(name)]
        return [group for group in found if group.version in complete] if complete else found

    def prune(self) -> None:
        """Forget queues of versions that are gone and for which nobody waits."""
        for version, queue in list(self.queues.items()):
            if not queue.items.size and version not in self.groups:
                del self.queues[version]


@dataclass(slots=True)
class Kind:
    """Jobs with one cost key.

    Attributes:
        example: One of them.
        jobs: How many are unfinished.
        ahead: By stage: of how many it is the first stage that has not begun. Behind the last: of
            how many there is none.
    """

    example: JobSubmitted
    jobs: int
    ahead: list[int]


class Flow:
    """One pipeline.

    Attributes:
        pipeline: Its name.
        lanes: The stages in order.
        jobs: How many are unfinished.
        workers: How many there are.
        solos: Of those, how many are pools by themselves.
        kinds: Unfinished jobs by cost key.
        changes: Grows with each change of what is counted here.
    """

    __slots__ = ("_counts", "changes", "jobs", "kinds", "lanes", "pipeline", "solos", "workers")

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline
        self.lanes = tuple(Lane(self, stage) for stage in Stage)
        self.jobs = 0
        self.workers = 0
        self.solos = 0
        self.changes = 0
        self.kinds: dict[str, Kind] = {}
        self._counts = [0] * (_STATES * _STATUSES)

    def lane(self, stage: Stage) -> Lane:
        """Return a stage."""
        return self.lanes[stage - 1]

    def is_complete(self, version: str) -> bool:
        """Whether all stages have workers of a version that take work."""
        return all(lane.is_ready(version) for lane in self.lanes)

    def add(self, state: JobState, status: StageStatus, amount: int) -> None:
        """Count jobs in or out."""
        self._counts[state * _STATUSES + status - 1] += amount
        self.changes += 1

    def move(self, old: tuple[JobState, StageStatus], new: tuple[JobState, StageStatus]) -> None:
        """Count a job where it is now."""
        self._counts[old[0] * _STATUSES + old[1] - 1] -= 1
        self._counts[new[0] * _STATUSES + new[1] - 1] += 1
        self.changes += 1

    def count(self, state: JobState, *statuses: StageStatus) -> int:
        """Return how many jobs are in a state, with one of these statuses or any."""
        begin = state * _STATUSES
        if not statuses:
            return sum(self._counts[begin : begin + _STATUSES])
        return sum([self._counts[begin + status - 1] for status in statuses])

    @property
    def before_dits(self) -> int:
        """How many jobs are in the encoders or wait for a DiT."""
        return sum(self._counts[_ENCODING : _DENOISING + 1])

    @property
    def before_decoders(self) -> int:
        """How many jobs wait for a decoder."""
        return self._counts[_DECODING]

    @property
    def in_flight(self) -> int:
        """How many jobs have begun."""
        return sum(self._counts[_ENCODING : _DECODING + _STATUSES])


class FlowTable:
    """The pipelines that have jobs or workers."""

    def __init__(self) -> None:
        self._flows: dict[str, Flow] = {}

    def __iter__(self) -> Iterator[Flow]:
        return iter(self._flows.values())

    def get(self, pipeline: str) -> Flow | None:
        """Return a pipeline if it has jobs or workers."""
        return self._flows.get(pipeline)

    def of(self, pipeline: str) -> Flow:
        """Return a pipeline; it is made where there is none."""
        flow = self._flows.get(pipeline)
        if flow is None:
            flow = self._flows[pipeline] = Flow(pipeline)
        return flow

    def release(self, flow: Flow) -> None:
        """Forget a pipeline if nothing is left of it."""
        if not flow.jobs and not flow.workers:
            self._flows.pop(flow.pipeline, None)
