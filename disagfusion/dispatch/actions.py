"""What the dispatcher wants done.

The list that `Dispatcher.handle` returns is in order, and so are the lists of successive calls. A
`SaveTransition` or `CompleteJob` must be durable before a later action of the same job is carried
out, unless that is a `Send`, a `FetchResult`, or an `Assign` whose attempt is durable: these begin
work that a crash makes void. What waits may so leave after a newer assignment to the same worker:
cancellations and releases name the attempt up to which they reach, and hit nothing newer.
"""

from __future__ import annotations

from typing import NamedTuple

from disagfusion.dispatch.events import OutputKey
from disagfusion.jobs.model import (
    Completion,
    JobState,
    Output,
    Progress,
    Stage,
    StageStatus,
    Transition,
)


class SaveTransition(NamedTuple):
    """Give `transition` to the store, then tell those who watch the job.

    FAILED, CANCELLED and EXPIRED come this way too: `transition.state.ended`.
    """

    transition: Transition


class CompleteJob(NamedTuple):
    """Give `completion` to the store, then tell those who watch the job: SUCCEEDED."""

    completion: Completion


class Publish(NamedTuple):
    """Tell those who watch the job; not stored."""

    job_id: str
    state: JobState
    stage_status: StageStatus
    attempt: int
    progress: Progress


class Assign(NamedTuple):
    """Send an Assignment to a worker."""

    worker: str
    incarnation: str
    job_id: str
    attempt: int
    stage: Stage
    grant_id: str
    source: OutputKey | None


class Send(NamedTuple):
    """Send a SendOutput to the holder of an output; `attempt` and `grant_id` are the receiver's."""

    worker: str
    incarnation: str
    output: OutputKey
    attempt: int
    grant_id: str
    to: str
    to_incarnation: str


class CancelOnWorker(NamedTuple):
    """Send a CancelAssignment: the job's work up to and including this attempt."""

    worker: str
    job_id: str
    attempt: int


class Release(NamedTuple):
    """Send a ReleaseOutput: outputs of attempts up to and including this one; None: every stage."""

    worker: str
    job_id: str
    stage: Stage | None
    attempt: int


class FetchResult(NamedTuple):
    """Fetch the media from a decoder into the result store, under (job, attempt, index).

    Answer with `ResultStored` or `ResultFailed` of the same job and attempt.
    """

    worker: str
    incarnation: str
    output: OutputKey
    attempt: int
    media: tuple[Output, ...]


class DiscardResult(NamedTuple):
    """Remove what was stored for an attempt that does not count any more."""

    job_id: str
    attempt: int


class Quarantine(NamedTuple):
    """Take a worker out of service."""

    worker: str
    incarnation: str
    reason: str


class ReturnGrants(NamedTuple):
    """Give grants back that were recalled and are not used."""

    worker: str
    incarnation: str
    grant_ids: tuple[str, ...]


class RefuseStale(NamedTuple):
    """A message was refused because it is not about what was assigned; to be counted.

    Attributes:
        message: The event's name, such as "StageDone".
    """

    worker: str
    job_id: str
    attempt: int
    message: str


Action = (
    SaveTransition
    | CompleteJob
    | Publish
    | Assign
    | Send
    | CancelOnWorker
    | Release
    | FetchResult
    | DiscardResult
    | Quarantine
    | ReturnGrants
    | RefuseStale
)
