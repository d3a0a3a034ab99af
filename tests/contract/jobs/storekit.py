"""Jobs and their changes for the tests of the job store."""

from dataclasses import replace

from disagfusion.jobs.model import (
    Completion,
    JobState,
    NewJob,
    Output,
    StageStatus,
    Transition,
)
from disagfusion.jobs.store import JobStore

IMAGE = Output(0, "image/png", 10, 64, 64, 1, "ab" * 32)


def new(job_id: str = "job-1", **changes: object) -> NewJob:
    return replace(NewJob(job_id, "anna", "flux", b"request", "f" * 64, 100.0), **changes)  # type: ignore[arg-type]


def step(
    job_id: str,
    before: JobState,
    after: JobState,
    status: StageStatus = StageStatus.WAITING,
    *,
    attempts: tuple[int, int] = (1, 1),
    **changes: object,
) -> Transition:
    change = Transition(job_id, before, attempts[0], after, status, attempts[1], 101.0)
    return change._replace(**changes)  # type: ignore[arg-type]


async def decode(store: JobStore, job_id: str) -> None:
    await store.transition(step(job_id, JobState.QUEUED, JobState.ENCODING))
    await store.transition(step(job_id, JobState.ENCODING, JobState.DENOISING))
    await store.transition(step(job_id, JobState.DENOISING, JobState.DECODING))


async def succeed(store: JobStore, job_id: str, *, at: float = 105.0) -> None:
    await decode(store, job_id)
    await store.complete(Completion(job_id, 1, at, (IMAGE,)))
