"""What is removed when, of jobs that have ended; and the removal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from disagfusion.errors import NotFoundError
from disagfusion.jobs.model import JobState
from disagfusion.jobs.results import ResultKey, ResultStore
from disagfusion.jobs.store import EndedJob, JobStore

_EVENT_BYTES = 128
_JOB_BYTES = 1024
_BATCH = 500

DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long what is kept, and how much of it; None for no bound.

    Attributes:
        job_seconds: After its end a job is removed with all that belongs to it.
        event_seconds: After its end a job's events are removed, all but the last.
        result_seconds: After its end a job's results are removed.
        result_bytes: Bound on all results; the oldest go first.
        job_bytes: Bound on what jobs and events take in the store, estimated; oldest first.
    """

    job_seconds: float | None = 7 * DAY_SECONDS
    event_seconds: float | None = 2 * DAY_SECONDS
    result_seconds: float | None = 2 * DAY_SECONDS
    result_bytes: int | None = 10 * 1024**3
    job_bytes: int | None = 1024**3


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What to remove: ids of jobs, each in one of the lists at most."""

    jobs: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """How many jobs were removed, or lost their results or events."""

    jobs: int
    results: int
    events: int


def plan(ended: Sequence[EndedJob], policy: RetentionPolicy, now: float) -> RetentionPlan:
    """Say what to remove.

    Args:
        ended: All jobs that have ended, oldest end first.
        policy: The bounds.
        now: Unix seconds.
    """
    gone = {job.job_id for job in ended if _older(job, policy.job_seconds, now)}
    kept = [job for job in ended if job.job_id not in gone]
    gone |= _beyond(kept, policy.job_bytes, lambda job: job.input_bytes + _overhead(job))
    kept = [job for job in kept if job.job_id not in gone]

    stored = [job for job in kept if job.result_bytes]
    results = {job.job_id for job in stored if _older(job, policy.result_seconds, now)}
    stored = [job for job in stored if job.job_id not in results]
    results |= _beyond(stored, policy.result_bytes, lambda job: job.result_bytes)

    events = (
        job.job_id for job in kept if job.events > 1 and _older(job, policy.event_seconds, now)
    )
    order = [job.job_id for job in ended]
    return RetentionPlan(
        jobs=tuple(job_id for job_id in order if job_id in gone),
        results=tuple(job_id for job_id in order if job_id in results),
        events=tuple(events),
    )


async def apply(
    store: JobStore, results: ResultStore, policy: RetentionPolicy, now: float
) -> RetentionReport:
    """Remove what the policy says.

    The store forgets first and the files go second: what a crash leaves in between is removed by
    `clean_results` at the next start. Jobs that have not ended are never touched.
    """
    planned = plan(await store.ended(), policy, now)
    keys: dict[str, list[ResultKey]] = {}
    doomed = {*planned.jobs, *planned.results}
    if doomed:
        for key in await store.result_keys():
            if key[0] in doomed:
                keys.setdefault(key[0], []).append(ResultKey(*key))
    for batch in _batches(planned.results):
        await store.forget_results(batch)
        await results.delete([key for job_id in batch for key in keys.get(job_id, ())])
    for batch in _batches(planned.jobs):
        await store.delete_jobs(batch)
        await results.delete([key for job_id in batch for key in keys.get(job_id, ())])
    for batch in _batches(planned.events):
        await store.delete_events(batch)
    return RetentionReport(len(planned.jobs), len(planned.results), len(planned.events))


async def clean_results(store: JobStore, results: ResultStore, before: float) -> int:
    """Remove files of results that no job in the store names; at a start.

    Args:
        store: The jobs.
        results: The results.
        before: Unix seconds of the start: what has been written since is left alone.

    Returns:
        The number of files removed.
    """
    keep = {ResultKey(*key) for key in await store.result_keys()}
    return await results.clean(keep, before=before)


async def discard_result(store: JobStore, results: ResultStore, job_id: str, attempt: int) -> bool:
    """Remove what an attempt has stored, unless the job has succeeded in that very attempt.

    Returns:
        Whether it was removed.
    """
    try:
        job = await store.load(job_id)
    except NotFoundError:
        job = None
    if job is not None and job.state is JobState.SUCCEEDED and job.attempt == attempt:
        return False
    await results.discard(job_id, attempt)
    return True


def _older(job: EndedJob, seconds: float | None, now: float) -> bool:
    return seconds is not None and now - job.ended_at > seconds


def _overhead(job: EndedJob) -> int:
    return _JOB_BYTES + _EVENT_BYTES * job.events


def _beyond(
    jobs: Sequence[EndedJob], bound: int | None, size: Callable[[EndedJob], int]
) -> set[str]:
    """Return the oldest jobs that have to go so that the others stay within a bound."""
    if bound is None:
        return set()
    excess = sum(size(job) for job in jobs) - bound
    beyond: set[str] = set()
    for job in jobs:
        if excess <= 0:
            break
        beyond.add(job.job_id)
        excess -= size(job)
    return beyond


def _batches(job_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (job_ids[i : i + _BATCH] for i in range(0, len(job_ids), _BATCH))
