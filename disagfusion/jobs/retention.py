"""Removes what is kept no longer of jobs that have ended."""

from __future__ import annotations

from dataclasses import dataclass

from disagfusion.errors import NotFoundError
from disagfusion.jobs.model import JobState
from disagfusion.jobs.results import ResultKey, ResultStore
from disagfusion.jobs.store import JobStore, RetentionPolicy

_BATCH = 500
# Writing one result takes no longer.
_WRITING_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """How many jobs were removed, or lost their results or events."""

    jobs: int
    results: int
    events: int


async def apply(
    store: JobStore, results: ResultStore, policy: RetentionPolicy, now: float
) -> RetentionReport:
    """Remove what the policy says.

    The store forgets first and the files go second: what a crash leaves in between is removed by
    `clean_results` at the next start. Jobs that have not ended are never touched.
    """
    counts = [0, 0, 0]
    while True:
        batch = await store.expired(policy, now, _BATCH)
        kinds = (batch.jobs, batch.results, batch.events)
        if not any(kinds):
            return RetentionReport(*counts)
        counts = [count + len(kind) for count, kind in zip(counts, kinds, strict=True)]
        keys = await store.result_keys([*batch.jobs, *batch.results])
        await store.forget_results(batch.results)
        await store.delete_jobs(batch.jobs)
        await store.delete_events(batch.events)
        await results.delete([ResultKey(*key) for key in keys])


async def clean_results(
    store: JobStore, results: ResultStore, before: float, *, shared: bool = False
) -> int:
    """Remove files of results that no job in the store names; at a start.

    Args:
        store: The jobs.
        results: The results.
        before: Unix seconds of the start: what has been written since is left alone.
        shared: Whether other gateways are at work: then what unfinished jobs have stored is left
            alone, and so is what was written shortly before.

    Returns:
        The number of files removed.
    """
    # In this order: a job may succeed in between.
    unfinished = [job.job_id for job in await store.unfinished()] if shared else []
    keep = {ResultKey(*key) for key in await store.result_keys()}
    if shared:
        before -= _WRITING_SECONDS
    return await results.clean(keep, keep_jobs=frozenset(unfinished), before=before)


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
