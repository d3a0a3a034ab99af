"""What retention does to the database, one function each, within a transaction."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, TextClause, delete, func, select, text, update

from disagfusion.jobs.sql_rows import ended_rows
from disagfusion.jobs.sql_schema import events, jobs, outputs
from disagfusion.jobs.store import Expired, RetentionPolicy

# What a row takes beside the bytes that it holds, about.
_JOB_BYTES = 1024
_EVENT_BYTES = 128
# In the words of their indices: planners do not see through parameters.
_WITH_RESULTS = text("result_bytes > 0")
_WITH_EVENTS = text("event_count > 1")


def expired(connection: Connection, policy: RetentionPolicy, now: float, limit: int) -> Expired:
    """Return the oldest of what goes by the policy, at most so many of each kind."""
    held = jobs.c.input_bytes + _JOB_BYTES + _EVENT_BYTES * jobs.c.event_count
    gone = _due(connection, held, policy.job_seconds, policy.job_bytes, now, limit)
    results = _due(
        connection,
        jobs.c.result_bytes,
        policy.result_seconds,
        policy.result_bytes,
        now,
        limit,
        _WITH_RESULTS,
    )
    old_events = _due(
        connection,
        jobs.c.event_count,
        policy.event_seconds,
        None,
        now,
        limit,
        _WITH_EVENTS,
    )
    removed = set(gone)
    return Expired(
        jobs=gone,
        results=tuple(job_id for job_id in results if job_id not in removed),
        events=tuple(job_id for job_id in old_events if job_id not in removed),
    )


def result_bytes(connection: Connection) -> int:
    """Return the bytes of all results that are stored."""
    query = select(func.sum(jobs.c.result_bytes)).where(_WITH_RESULTS)
    return int(connection.execute(query).scalar() or 0)


def result_keys(
    connection: Connection, job_ids: Collection[str] | None
) -> frozenset[tuple[str, int, int]]:
    """Return (job id, attempt, index) of stored outputs; None asks for all jobs'."""
    query = (
        select(jobs.c.job_id, outputs.c.attempt, outputs.c.index)
        .join(jobs, jobs.c.id == outputs.c.job)
        .where(outputs.c.stored)
    )
    if job_ids is not None:
        query = query.where(jobs.c.job_id.in_(job_ids))
    return frozenset((row[0], row[1], row[2]) for row in connection.execute(query))


def forget_results(connection: Connection, job_ids: Collection[str]) -> None:
    """Note that results are gone."""
    for ids in ended_rows(connection, job_ids):
        connection.execute(update(outputs).where(outputs.c.job.in_(ids)).values(stored=False))
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(result_bytes=0))


def delete_events(connection: Connection, job_ids: Collection[str]) -> None:
    """Keep the last event only."""
    for ids in ended_rows(connection, job_ids):
        last = select(jobs.c.sequence).where(jobs.c.id == events.c.job).scalar_subquery()
        connection.execute(delete(events).where(events.c.job.in_(ids), events.c.sequence < last))
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(event_count=1))


def delete_jobs(connection: Connection, job_ids: Collection[str]) -> None:
    """Remove jobs; what belongs to them goes with them."""
    for ids in ended_rows(connection, job_ids):
        connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))


def _due(
    connection: Connection,
    size: ColumnElement[int],
    seconds: float | None,
    bound: int | None,
    now: float,
    limit: int,
    *only: TextClause,
) -> tuple[str, ...]:
    """Return the oldest ended jobs that are too old, or that must go for the rest to fit."""
    ended = jobs.c.ended_at.is_not(None)
    excess = 0
    if bound is not None:
        total = connection.execute(select(func.sum(size)).where(ended, *only)).scalar()
        excess = int(total or 0) - bound
    oldest = (
        select(jobs.c.job_id, jobs.c.ended_at, size)
        .where(ended, *only)
        .order_by(jobs.c.ended_at)
        .limit(limit)
    )
    due = []
    for job_id, ended_at, nbytes in connection.execute(oldest):
        if excess <= 0 and (seconds is None or now - ended_at <= seconds):
            break
        due.append(job_id)
        excess -= nbytes
    return tuple(due)
