"""Which rows of the job store are meant, and what jobs they make."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, select

from disagfusion.jobs.model import (
    Job,
    JobError,
    JobEvent,
    JobState,
    Output,
    Stage,
    StageRecord,
    StageStatus,
)
from disagfusion.jobs.sql_schema import jobs
from disagfusion.jobs.sql_statements import OUTPUTS_OF, RECORDS_OF

T = TypeVar("T")

_BATCH = 500


def ended_rows(connection: Connection, job_ids: Collection[str]) -> Iterator[list[int]]:
    """Yield the row numbers of those of these jobs that have ended, some at a time."""
    for batch in _batches(job_ids):
        query = select(jobs.c.id).where(jobs.c.job_id.in_(batch), jobs.c.ended_at.is_not(None))
        yield list(connection.execute(query).scalars())


def complete_jobs(connection: Connection, rows: Sequence[Row[Any]]) -> list[Job]:
    """Return jobs with their stage records and outputs."""
    records: dict[int, list[StageRecord]] = {row.id: [] for row in rows}
    results: dict[int, list[Output]] = {row.id: [] for row in rows}
    for batch in _batches(list(records)):
        for row, stage, *fields in connection.execute(RECORDS_OF, {"rows": batch}):
            records[row].append(StageRecord(Stage(stage), *fields))
        for row, *fields in connection.execute(OUTPUTS_OF, {"rows": batch}):
            results[row].append(Output(*fields))
    return [_job(row, records[row.id], results[row.id]) for row in rows]


def event_of(job_id: str, row: Row[Any]) -> JobEvent:
    """Return a job's event."""
    return JobEvent(
        job_id,
        row.sequence,
        row.time,
        JobState(row.state),
        StageStatus(row.stage_status),
        row.attempt,
        row.message,
    )


def _job(row: Row[Any], records: list[StageRecord], results: list[Output]) -> Job:
    error = None
    if row.error_reason is not None:
        error = JobError(row.error_reason, row.error_message or "")
    return Job(
        job_id=row.job_id,
        tenant=row.tenant,
        pipeline=row.pipeline,
        generation=row.generation,
        client_request_id=row.client_request_id or "",
        priority=row.priority,
        submitted_at=row.submitted_at,
        deadline=row.deadline,
        cost_key=row.cost_key,
        num_inference_steps=row.num_inference_steps,
        traceparent=row.traceparent,
        state=JobState(row.state),
        stage_status=StageStatus(row.stage_status),
        attempt=row.attempt,
        version=row.version,
        failures=row.failures,
        sequence=row.sequence,
        started_at=row.started_at,
        ended_at=row.ended_at,
        error=error,
        outputs=tuple(results),
        stages=tuple(records),
    )


def _batches(items: Collection[T]) -> Iterator[list[T]]:
    """Split what goes into an IN list: databases bound its length."""
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
