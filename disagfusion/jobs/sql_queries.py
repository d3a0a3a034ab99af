"""What the job store does to the database, one function each, within a transaction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, Row, select

from disagfusion.errors import AlreadyExistsError, NotFoundError
from disagfusion.jobs.model import (
    Completion,
    InputImage,
    Job,
    JobEvent,
    JobState,
    NewJob,
    StageRecord,
    StageStatus,
    StaleTransitionError,
    Transition,
)
from disagfusion.jobs.sql_rows import complete_jobs, event_of
from disagfusion.jobs.sql_schema import events, images, jobs
from disagfusion.jobs.sql_statements import (
    ADD_EVENT,
    ADD_IMAGES,
    ADD_JOB,
    ADD_OUTPUTS,
    CHANGE,
    CHANGED,
    DROP_IMAGES,
    EVENTS_AFTER,
    FIND,
    FIND_OF_TENANT,
    FIND_PIPELINE,
    FIND_SUBMITTED,
    LOCK,
    PUT_PIPELINE,
    PUT_RECORD,
)
from disagfusion.jobs.store import Submission

MAX_MESSAGE = 4000
_RECORDS_PER_EVENT = 1000
# More than one transaction changes of a job.
_RECENT = 100


def submit(connection: Connection, job: NewJob, owner: str | None = None) -> Submission:
    """Store a job unless the tenant's client request id is known.

    Args:
        connection: To the database.
        job: What to do.
        owner: The gateway that does it, where several share the store.
    """
    known = repeated(connection, job)
    if known is not None:
        return Submission(known, created=False)
    stored = _first_state(job)
    values = {
        name: getattr(stored, name) for name in jobs.c.keys() if name in Job.__dataclass_fields__
    }
    values |= {
        "client_request_id": job.client_request_id or None,
        "fingerprint": job.fingerprint,
        "input_bytes": len(job.generation) + sum(len(image.content) for image in job.images),
        "result_bytes": 0,
        "event_count": 1,
        "owner": owner,
    }
    key = connection.execute(ADD_JOB, values).inserted_primary_key
    assert key is not None, "the dialect returns the new row's number"
    if job.images:
        connection.execute(
            ADD_IMAGES,
            [
                {"job": key[0], "position": i, "name": image.name, "content": image.content}
                for i, image in enumerate(job.images)
            ],
        )
    _add_event(
        connection,
        key[0],
        JobEvent(job.job_id, 1, job.submitted_at, stored.state, stored.stage_status, attempt=1),
    )
    return Submission(stored, created=True)


def repeated(connection: Connection, job: NewJob) -> Job | None:
    """Return the job that the tenant submitted before with the same client request id, if any."""
    row = _submitted_before(connection, job)
    return complete_jobs(connection, [row])[0] if row is not None else None


def _submitted_before(connection: Connection, job: NewJob) -> Row[Any] | None:
    """Return the tenant's job of the same client request id.

    Raises:
        AlreadyExistsError: Its content was another, or the job id is taken.
    """
    request_id = job.client_request_id or None
    found = connection.execute(
        FIND_SUBMITTED,
        {"new_id": job.job_id, "of_tenant": job.tenant, "request_id": request_id},
    ).all()
    for row in found:
        if request_id is None or (row.tenant, row.client_request_id) != (job.tenant, request_id):
            continue
        if row.fingerprint != job.fingerprint:
            raise AlreadyExistsError(
                f"client request id {request_id!r} was used before with other content",
                reason="CLIENT_REQUEST_ID_REUSED",
                metadata={"job_id": row.job_id},
            )
        return row
    if found:
        raise AlreadyExistsError(f"there is a job {job.job_id} already")
    return None


def _first_state(job: NewJob) -> Job:
    return Job(
        job_id=job.job_id,
        tenant=job.tenant,
        pipeline=job.pipeline,
        generation=job.generation,
        client_request_id=job.client_request_id,
        priority=job.priority,
        submitted_at=job.submitted_at,
        deadline=job.deadline,
        cost_key=job.cost_key,
        num_inference_steps=job.num_inference_steps,
        traceparent=job.traceparent,
        state=JobState.QUEUED,
        stage_status=StageStatus.WAITING,
        attempt=1,
        version="",
        failures=0,
        sequence=1,
    )


def transition(
    connection: Connection, change: Transition, owner: str | None = None, *, again: bool = False
) -> JobEvent:
    """Apply a change to a gateway's job that is in the state and attempt it starts from.

    Args:
        connection: To the database.
        change: What changes.
        owner: The gateway, where several share the store.
        again: It may have been applied before, without an answer.
    """
    if change.attempt < change.from_attempt or change.state is JobState.SUCCEEDED:
        raise ValueError("an attempt never goes down, and success is a completion")
    row = _locked(connection, change.job_id, owner)
    known = _done_before(connection, row, change, change.state) if again else None
    if known is not None:
        return known
    _check_place(row, change.from_state, change.from_attempt)
    values: dict[str, Any] = {
        "state": change.state,
        "stage_status": change.stage_status,
        "attempt": change.attempt,
        "version": change.version,
        "failures": change.failures,
    }
    if row.started_at is None and not change.state.ended:
        values["started_at"] = change.time
    if change.state.ended:
        values["ended_at"] = change.time
    if change.error is not None:
        values["error_reason"] = change.error.reason
        values["error_message"] = _text(change.error.message)
    event = JobEvent(
        change.job_id,
        row.sequence + 1,
        change.time,
        change.state,
        change.stage_status,
        change.attempt,
        _text(change.message),
    )
    _change(connection, row, values, event, change.records)
    return event


def complete(
    connection: Connection, completion: Completion, owner: str | None = None, *, again: bool = False
) -> JobEvent:
    """Make a gateway's job SUCCEEDED if it is DECODING in this very attempt; see `transition`."""
    row = _locked(connection, completion.job_id, owner)
    known = _done_before(connection, row, completion, JobState.SUCCEEDED) if again else None
    if known is not None:
        return known
    _check_place(row, JobState.DECODING, completion.attempt)
    if completion.outputs:
        connection.execute(
            ADD_OUTPUTS,
            [
                {"job": row.id, "attempt": completion.attempt, **dataclasses.asdict(output)}
                for output in completion.outputs
            ],
        )
    event = JobEvent(
        completion.job_id,
        row.sequence + 1,
        completion.time,
        JobState.SUCCEEDED,
        StageStatus(row.stage_status),
        completion.attempt,
    )
    values = {
        "state": JobState.SUCCEEDED,
        "ended_at": completion.time,
        "result_bytes": sum(output.size_bytes for output in completion.outputs),
    }
    _change(connection, row, values, event, completion.records)
    return event


def load(connection: Connection, job_id: str, tenant: str | None = None) -> Job:
    """Return a job, of this tenant unless None."""
    return complete_jobs(connection, [_row(connection, job_id, tenant)])[0]


def load_images(connection: Connection, job_id: str) -> tuple[InputImage, ...]:
    """Return a job's images in order."""
    rows = connection.execute(
        select(images.c.name, images.c.content)
        .join(jobs, jobs.c.id == images.c.job)
        .where(jobs.c.job_id == job_id)
        .order_by(images.c.position)
    )
    return tuple(InputImage(row.name, row.content) for row in rows)


def load_events(
    connection: Connection, job_id: str, tenant: str, after_sequence: int, limit: int
) -> list[JobEvent]:
    """Return events of a tenant's job in order."""
    return _events(connection, _row(connection, job_id, tenant), after_sequence, limit)


def _events(connection: Connection, job: Row[Any], after: int, limit: int) -> list[JobEvent]:
    rows = connection.execute(EVENTS_AFTER, {"row": job.id, "after": after, "at_most": limit})
    return [event_of(job.job_id, row) for row in rows]


def list_jobs(
    connection: Connection,
    tenant: str,
    limit: int,
    before: int | None,
    states: Collection[JobState],
) -> list[tuple[int, Job]]:
    """Return a tenant's jobs with their row numbers, newest first."""
    query = select(jobs).where(jobs.c.tenant == tenant).order_by(jobs.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(jobs.c.id < before)
    if states:
        query = query.where(jobs.c.state.in_([int(state) for state in states]))
    rows = connection.execute(query).all()
    return list(zip([row.id for row in rows], complete_jobs(connection, rows), strict=True))


def unfinished(connection: Connection) -> list[Job]:
    """Return all jobs that have not ended, oldest first."""
    rows = connection.execute(select(jobs).where(jobs.c.ended_at.is_(None)).order_by(jobs.c.id))
    return complete_jobs(connection, rows.all())


def _row(connection: Connection, job_id: str, tenant: str | None = None) -> Row[Any]:
    values = {"wanted": job_id}
    if tenant is not None:
        values["of_tenant"] = tenant
    query = FIND if tenant is None else FIND_OF_TENANT
    return _found(connection.execute(query, values).one_or_none(), job_id)


def _locked(connection: Connection, job_id: str, owner: str | None) -> Row[Any]:
    """Return a job's row for a change by its owner."""
    row = _found(connection.execute(LOCK, {"wanted": job_id}).one_or_none(), job_id)
    if row.owner != owner:
        raise StaleTransitionError(
            f"job {job_id} belongs to the gateway {row.owner}", metadata={"job_id": job_id}
        )
    return row


def _check_place(row: Row[Any], state: JobState, attempt: int) -> None:
    """Raise `StaleTransitionError` unless a job is where a change starts from."""
    if (row.state, row.attempt) != (state, attempt):
        raise StaleTransitionError(
            f"job {row.job_id} is {JobState(row.state).name} in attempt {row.attempt},"
            f" not {state.name} in attempt {attempt}",
            metadata={"job_id": row.job_id},
        )


def _done_before(
    connection: Connection, row: Row[Any], change: Transition | Completion, state: JobState
) -> JobEvent | None:
    """Return the event of a change that is in the store already: its commit was not answered."""
    wanted = (change.time, state, change.attempt)
    status = change.stage_status if isinstance(change, Transition) else row.stage_status
    for event in _events(connection, row, max(0, row.sequence - _RECENT), _RECENT):
        if (event.time, event.state, event.attempt, event.stage_status) == (*wanted, status):
            return event
    return None


def _found(row: Row[Any] | None, job_id: str) -> Row[Any]:
    if row is None:
        raise NotFoundError(f"there is no job {job_id!r}", metadata={"job_id": job_id})
    return row


def _change(
    connection: Connection,
    row: Row[Any],
    values: dict[str, Any],
    event: JobEvent,
    records: Iterable[StageRecord],
) -> None:
    """Write a job's new values, where they differ, with records and the event."""
    values |= {"sequence": event.sequence, "event_count": row.event_count + 1}
    if event.state.ended:
        # Nothing will read the images any more.
        values["input_bytes"] = len(row.generation)
        connection.execute(DROP_IMAGES, {"row": row.id})
    parameters = {f"new_{name}": values.get(name, getattr(row, name)) for name in CHANGED}
    connection.execute(CHANGE, {"row": row.id, **parameters})
    for i, record in enumerate(records):
        fields = {name: _storable(value) for name, value in dataclasses.asdict(record).items()}
        # A record keeps the place at which it was first stored.
        fields |= {"job": row.id, "position": event.sequence * _RECORDS_PER_EVENT + i}
        connection.execute(PUT_RECORD[connection.dialect.name], fields)
    _add_event(connection, row.id, event)


def put_specification(
    connection: Connection, pipeline: str, specification: str, *, again: bool = False
) -> None:
    """Keep what a pipeline accepts, in the place of what was kept before.

    Args:
        connection: To the database.
        pipeline: Its name.
        specification: What it accepts.
        again: It may have been done before, which changes nothing.
    """
    del again
    values = {"name": pipeline, "specification": specification}
    connection.execute(PUT_PIPELINE[connection.dialect.name], values)


def specification(connection: Connection, pipeline: str) -> str:
    """Return what was kept last of a pipeline; empty where nothing was."""
    return connection.execute(FIND_PIPELINE, {"name": pipeline}).scalar() or ""


def _storable(value: object) -> object:
    """Replace what a worker should not have said: SQL has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else 0.0
    return _text(value) if isinstance(value, str) else value


def _text(message: str) -> str:
    """Return a message as every database can hold it: not too long, without NUL."""
    return message[:MAX_MESSAGE].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _add_event(connection: Connection, job: int, event: JobEvent) -> None:
    values = {name: getattr(event, name) for name in events.c.keys() if name != "job"}
    connection.execute(ADD_EVENT, {"job": job, **values})
