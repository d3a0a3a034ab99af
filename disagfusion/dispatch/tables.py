"""What the dispatcher remembers of unfinished jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from disagfusion.dispatch.agenda import Agenda
from disagfusion.dispatch.events import JobSubmitted, OutputKey
from disagfusion.dispatch.flow import FlowTable, Kind, Lane, Queue, WaitingJob
from disagfusion.dispatch.workers import WorkerEntry
from disagfusion.jobs.model import (
    STAGE_STATES,
    FailureKind,
    JobState,
    Output,
    Stage,
    StageRecord,
    StageStatus,
)

_QUEUED = JobState.QUEUED
_STAGE_OF = {state: stage for stage, state in STAGE_STATES.items()}
_STAGE_OF[_QUEUED] = Stage.ENCODER
_NOTHING_AHEAD = len(Stage) + 1


@dataclass(slots=True, eq=False)
class Assignment:
    """One stage of one attempt of a job, given to one worker.

    Attributes:
        worker: As long as it is live.
        seconds: Predicted when it was given, and again when it began.
        known: Whether that prediction is known; see `estimates`.
        end: When it is predicted to end; None: it has not begun.
        first_step: Where our knowledge of its speed begins: not 0 if it was adopted.
    """

    worker: WorkerEntry
    stage: Stage
    attempt: int
    received: bool
    seconds: float = 0.0
    known: bool = False
    end: float | None = None
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


@dataclass(slots=True, eq=False)
class JobEntry:
    """An unfinished job.

    Attributes:
        order: Rank of submission.
        lane: The stage that it is in, or waits for.
        kind: Jobs like it.
        setbacks: Attempts that ended through no fault of the job's.
        held: By stage, what live workers hold for it.
        avoid: Workers that failed its current stage; True: wait for another if there is one.
        blamed: Failures that become strikes if the stage succeeds elsewhere.
        records: Its stage records by (stage, attempt).
        unsaved: Keys of records to go with the next transition.
        fetching: Whether its results are being fetched and stored.
        fetch_tries: How often that failed.
        retrying: Whether it waits until it may wait for a worker.
        recovering: Whether it waits for a worker to claim its recorded attempt.
        doubtful: Whether a gateway before this one may have told a worker of its attempt.
        contested: Whether another gateway may still act on its recorded attempt.
        waiting: Where it stands in which queue.
        ahead: The first stage that has not begun, as it is counted in its kind.
    """

    spec: JobSubmitted
    job_id: str = field(init=False)
    order: int
    lane: Lane
    kind: Kind
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
    retrying: bool = False
    recovering: bool = False
    doubtful: bool = False
    contested: bool = False
    waiting: tuple[Queue, WaitingJob] | None = None
    ahead: int = 0

    def __post_init__(self) -> None:
        self.job_id = self.spec.job_id

    @property
    def stage(self) -> Stage:
        """The stage it is in, or waits for."""
        return self.lane.stage

    @property
    def source(self) -> Held | None:
        """The output that its stage takes as input, where a live worker holds it."""
        before = self.lane.before
        return None if before is None else self.held.get(before)

    @property
    def begun(self) -> bool:
        """Whether any work was put into it."""
        return self.state is not _QUEUED

    def assigned_to(self, worker: WorkerEntry, stage: Stage | None, attempt: int) -> bool:
        """Whether this worker was given this stage (any where None) of this attempt."""
        assignment = self.assignment
        return (
            assignment is not None
            and assignment.worker is worker
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
        if not self.unsaved:
            return ()
        records = tuple([self.records[key] for key in self.unsaved])
        self.unsaved.clear()
        return records


class JobTable:
    """The unfinished jobs, who waits for what, and how many are where."""

    def __init__(self, flows: FlowTable, agenda: Agenda) -> None:
        self._flows = flows
        self._agenda = agenda
        self._jobs: dict[str, JobEntry] = {}
        self._tenants: Counter[str] = Counter()
        self._queued = 0
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
        flow = self._flows.of(spec.pipeline)
        flow.jobs += 1
        kind = flow.kinds.get(spec.cost_key)
        if kind is None:
            kind = flow.kinds[spec.cost_key] = Kind(spec, 0, [0] * (_NOTHING_AHEAD + 1))
        kind.jobs += 1
        job = JobEntry(spec, self._submitted, flow.lane(Stage.ENCODER), kind)
        self._jobs[job.job_id] = job
        self._tenants[spec.tenant] += 1
        self._queued += 1
        flow.add(job.state, job.status, 1)
        kind.ahead[0] += 1
        self.count_ahead(job)
        return job

    def remove(self, job: JobEntry) -> None:
        """Forget a job that does not wait."""
        del self._jobs[job.job_id]
        tenant = job.spec.tenant
        self._tenants[tenant] -= 1
        if not self._tenants[tenant]:
            del self._tenants[tenant]
        flow = job.lane.flow
        flow.add(job.state, job.status, -1)
        self._queued -= job.state is _QUEUED
        flow.jobs -= 1
        job.kind.jobs -= 1
        job.kind.ahead[job.ahead] -= 1
        if not job.kind.jobs:
            del flow.kinds[job.spec.cost_key]
        self._flows.release(flow)

    def place(self, job: JobEntry, state: JobState, status: StageStatus) -> None:
        """Move a job to another state."""
        flow = job.lane.flow
        flow.move((job.state, job.status), (state, status))
        job.status = status
        if state is not job.state:
            self._queued += (state is _QUEUED) - (job.state is _QUEUED)
            job.state = state
            stage = _STAGE_OF.get(state)
            if stage is not None:
                job.lane = flow.lane(stage)
                self.count_ahead(job)

    def count_ahead(self, job: JobEntry) -> None:
        """Count of which stages all is still to be done for a job."""
        if job.fetching:
            ahead = _NOTHING_AHEAD
        else:
            begun = job.assignment is not None and job.assignment.started_at is not None
            ahead = job.lane.stage + begun
        counts = job.kind.ahead
        counts[job.ahead] -= 1
        counts[ahead] += 1
        job.ahead = ahead

    def enqueue(self, job: JobEntry, seconds: float = 0.0) -> None:
        """Let a job wait for a worker.

        What was begun comes first, then by priority, then the fewest seconds, then in order.
        """
        self.dequeue(job)
        queue = job.lane.queue(job.version)
        item = (job.state is _QUEUED, -job.spec.priority, seconds, job.order, job)
        queue.items.add(item)
        job.waiting = queue, item
        if queue.items.size > queue.enough or queue.items.first() is item:
            self._agenda.mark(queue)

    def dequeue(self, job: JobEntry) -> None:
        """Let a job wait no more."""
        if job.waiting is None:
            return
        queue, item = job.waiting
        job.waiting = None
        queue.items.remove(item)
        if not queue.items.size and queue.look is not None:
            self._agenda.look_at(queue, None)

    def queues(self) -> list[Queue]:
        """Return the non-empty queues in the order in which they are served."""
        found = [
            queue
            for flow in self._flows
            for lane in flow.lanes
            for queue in lane.queues.values()
            if queue.items.size
        ]
        return sorted(found, key=lambda queue: queue.rank)

    def count(self, pipeline: str, state: JobState, *statuses: StageStatus) -> int:
        """Return how many jobs are in a state, with one of these statuses or any."""
        flow = self._flows.get(pipeline)
        return 0 if flow is None else flow.count(state, *statuses)

    def count_queued(self) -> int:
        """Return how many jobs have not begun, over all pipelines."""
        return self._queued

    def count_tenant(self, tenant: str) -> int:
        """Return how many unfinished jobs a tenant has."""
        return self._tenants[tenant]
