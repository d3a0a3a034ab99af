"""What the dispatcher remembers of workers and of unfinished jobs."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from disagfusion.dispatch.events import JobSubmitted, OutputKey, WorkerInfo, WorkerState
from disagfusion.dispatch.heap import RemovableHeap
from disagfusion.jobs.model import (
    FailureKind,
    JobState,
    Output,
    Stage,
    StageRecord,
    StageStatus,
)

K = TypeVar("K", bound=Hashable)

# Twice the slots that a worker may have: an offer under way is not older than that.
_REMEMBERED_GRANTS = 128

_STAGE_OF = {
    JobState.QUEUED: Stage.ENCODER,
    JobState.ENCODING: Stage.ENCODER,
    JobState.DENOISING: Stage.DIT,
    JobState.DECODING: Stage.DECODER,
}


@dataclass(slots=True)
class Assignment:
    """One stage of one attempt of a job, given to one worker.

    `first_step` is where our knowledge of its speed begins: not 0 if it was adopted.
    """

    worker: str
    incarnation: str
    stage: Stage
    attempt: int
    received: bool
    started_at: float | None = None
    step: int = 0
    first_step: int = 0
    num_inference_steps: int = 0
    step_at: float = 0.0


@dataclass(slots=True)
class Held:
    """An output that a live worker holds and that the job may still need."""

    key: OutputKey
    worker: str
    nbytes: int
    media: tuple[Output, ...] = ()
    transfer_failures: int = 0


@dataclass(frozen=True, slots=True)
class Blame:
    """A worker that failed a stage of a job."""

    worker: str
    incarnation: str
    stage: Stage
    kind: FailureKind


@dataclass(slots=True)
class JobEntry:
    """An unfinished job.

    Attributes:
        order: Rank of submission.
        setbacks: Attempts that ended through no fault of the job's.
        held: By stage, what live workers hold for it.
        avoid: Workers that failed its current stage; True: wait for another if there is one.
        blamed: Failures that become strikes if the stage succeeds elsewhere.
        records: Its stage records by (stage, attempt).
        unsaved: Keys of records to go with the next transition.
        fetching: Whether its results are being fetched and stored.
        fetch_tries: How often that failed.
        recovering: Whether it waits for a worker to claim its recorded attempt.
        doubtful: Whether a gateway before this one may have told a worker of its attempt.
    """

    spec: JobSubmitted
    order: int
    state: JobState = JobState.QUEUED
    status: StageStatus = StageStatus.WAITING
    attempt: int = 1
    version: str = ""
    failures: int = 0
    setbacks: int = 0
    assignment: Assignment | None = None
    held: dict[Stage, Held] = field(default_factory=dict)
    avoid: dict[str, bool] = field(default_factory=dict)
    blamed: list[Blame] = field(default_factory=list)
    records: dict[tuple[Stage, int], StageRecord] = field(default_factory=dict)
    unsaved: dict[tuple[Stage, int], None] = field(default_factory=dict)
    fetching: bool = False
    fetch_tries: int = 0
    recovering: bool = False
    doubtful: bool = False

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.spec.job_id

    @property
    def stage(self) -> Stage:
        """The stage it is in, or waits for."""
        return _STAGE_OF[self.state]

    @property
    def source(self) -> Held | None:
        """The output that its stage takes as input, where a live worker holds it."""
        return None if self.stage is Stage.ENCODER else self.held.get(Stage(self.stage - 1))

    @property
    def begun(self) -> bool:
        """Whether any work was put into it."""
        return self.state is not JobState.QUEUED

    def assigned_to(self, worker: WorkerEntry, stage: Stage | None, attempt: int) -> bool:
        """Whether this worker was given this stage (any where None) of this attempt."""
        assignment = self.assignment
        return (
            assignment is not None
            and assignment.worker == worker.name
            and assignment.incarnation == worker.info.incarnation
            and assignment.attempt == attempt
            and stage in (None, assignment.stage)
        )

    def note(self, record: StageRecord) -> None:
        """Keep a record, to be stored with the next transition."""
        key = (record.stage, record.attempt)
        self.records[key] = record
        self.unsaved[key] = None

    def take_unsaved(self) -> tuple[StageRecord, ...]:
        """Return the records that are not stored yet, once."""
        records = tuple(self.records[key] for key in self.unsaved)
        self.unsaved.clear()
        return records


@dataclass(slots=True)
class WorkerEntry:
    """A live worker.

    Attributes:
        connected: Whether its stream stands.
        grants: Rights that are not used, oldest first.
        used: Grants that were used lately: never again, whatever is offered.
        assignments: By job id, in the order in which they were given.
        holding: (job id, stage) of the outputs it holds for unfinished jobs.
        strikes: Job id → time, of jobs that it failed and another did.
        last_assigned: Serial number of the last assignment, to break ties.
    """

    info: WorkerInfo
    connected: bool = True
    grants: dict[str, None] = field(default_factory=dict)
    used: OrderedDict[str, None] = field(default_factory=OrderedDict)
    assignments: dict[str, Assignment] = field(default_factory=dict)
    holding: set[tuple[str, Stage]] = field(default_factory=set)
    strikes: dict[str, float] = field(default_factory=dict)
    condemned: bool = False
    last_assigned: int = 0

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.info.name

    @property
    def ready(self) -> bool:
        """Whether it would take work."""
        return self.connected and not self.condemned and self.info.state is WorkerState.READY

    def offer(self, grant_ids: Iterable[str]) -> None:
        """Add grants, but none that were used."""
        for grant in grant_ids:
            if grant not in self.used:
                self.grants[grant] = None

    def take_grant(self) -> str:
        """Use up the oldest grant."""
        grant = next(iter(self.grants))
        del self.grants[grant]
        self.used[grant] = None
        if len(self.used) > _REMEMBERED_GRANTS:
            self.used.popitem(last=False)
        return grant


class WorkerTable:
    """The live workers, by name and by what they do."""

    def __init__(self) -> None:
        self._workers: dict[str, WorkerEntry] = {}
        self._by_stage: dict[tuple[str, Stage], list[WorkerEntry]] = {}

    def __iter__(self) -> Iterator[WorkerEntry]:
        return iter(self._workers.values())

    def get(self, name: str, incarnation: str | None = None) -> WorkerEntry | None:
        """Return a worker, if it is this incarnation."""
        worker = self._workers.get(name)
        if worker is None or incarnation not in (None, worker.info.incarnation):
            return None
        return worker

    def put(self, worker: WorkerEntry) -> None:
        """Add a worker, or take note that its description has changed."""
        self._workers[worker.name] = worker
        self._index()

    def remove(self, name: str) -> None:
        """Forget a worker."""
        self._workers.pop(name, None)
        self._index()

    def of_stage(self, pipeline: str, stage: Stage, version: str = "") -> list[WorkerEntry]:
        """Return the workers of a stage, of one model version unless that is empty."""
        workers = self._by_stage.get((pipeline, stage), [])
        if not version:
            return workers
        return [worker for worker in workers if worker.info.version == version]

    def slots(self, pipeline: str, stage: Stage) -> int:
        """Return the number of input slots of a stage."""
        return sum(worker.info.slots for worker in self._by_stage.get((pipeline, stage), ()))

    def _index(self) -> None:
        self._by_stage = {}
        for worker in self._workers.values():
            for stage in worker.info.stages:
                self._by_stage.setdefault((worker.info.pipeline, stage), []).append(worker)


WaitingKey = tuple[Stage, str, str]
"""Stage, pipeline and pinned version (empty: any) of jobs that can take one another's place."""


class JobTable:
    """The unfinished jobs, who waits for what, and how many are where."""

    def __init__(self) -> None:
        self._jobs: dict[str, JobEntry] = {}
        self._tenants: Counter[str] = Counter()
        self._counts: Counter[tuple[str, JobState, StageStatus]] = Counter()
        self._waiting: dict[WaitingKey, RemovableHeap[str]] = {}
        self._submitted = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[JobEntry]:
        return iter(self._jobs.values())

    def get(self, job_id: str) -> JobEntry | None:
        """Return an unfinished job."""
        return self._jobs.get(job_id)

    def add(self, spec: JobSubmitted) -> JobEntry:
        """Add a job, QUEUED in attempt 1."""
        self._submitted += 1
        job = JobEntry(spec, self._submitted)
        self._jobs[job.job_id] = job
        self._tenants[spec.tenant] += 1
        self._counts[spec.pipeline, job.state, job.status] += 1
        return job

    def remove(self, job: JobEntry) -> None:
        """Forget a job that does not wait."""
        del self._jobs[job.job_id]
        _decrement(self._tenants, job.spec.tenant)
        _decrement(self._counts, (job.spec.pipeline, job.state, job.status))

    def place(self, job: JobEntry, state: JobState, status: StageStatus) -> None:
        """Move a job to another state."""
        _decrement(self._counts, (job.spec.pipeline, job.state, job.status))
        job.state, job.status = state, status
        self._counts[job.spec.pipeline, state, status] += 1

    def enqueue(self, job: JobEntry) -> None:
        """Let a job wait for a worker: what was begun first, then by priority, then in order."""
        key = (job.stage, job.spec.pipeline, job.version)
        heap = self._waiting.setdefault(key, RemovableHeap())
        heap.push(job.job_id, (not job.begun, -job.spec.priority, job.order))

    def dequeue(self, job: JobEntry) -> None:
        """Let a job wait no more."""
        key = (job.stage, job.spec.pipeline, job.version)
        heap = self._waiting.get(key)
        if heap is not None:
            heap.remove(job.job_id)
            if not heap:
                del self._waiting[key]

    def queues(self) -> list[WaitingKey]:
        """Return the non-empty queues: later stages first, pinned versions before any version."""
        return sorted(self._waiting, key=lambda key: (-key[0], key[1], not key[2], key[2]))

    def queue(self, key: WaitingKey) -> RemovableHeap[str]:
        """Return a queue; an empty one where nothing waits."""
        return self._waiting.get(key) or RemovableHeap()

    def count(self, pipeline: str, state: JobState, *statuses: StageStatus) -> int:
        """Return how many jobs are in a state, with one of these statuses or any."""
        return sum(
            self._counts[pipeline, state, status] for status in (statuses or tuple(StageStatus))
        )

    def count_queued(self) -> int:
        """Return how many jobs have not begun, over all pipelines."""
        return sum(n for (_, state, _), n in self._counts.items() if state is JobState.QUEUED)

    def count_tenant(self, tenant: str) -> int:
        """Return how many unfinished jobs a tenant has."""
        return self._tenants[tenant]


def _decrement(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
