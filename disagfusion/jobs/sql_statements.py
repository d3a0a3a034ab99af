"""Statements of the job store that run often: building one costs more than running it."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Executable, and_, bindparam, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from disagfusion.jobs.model import Output, StageRecord
from disagfusion.jobs.sql_schema import events, images, jobs, outputs, pipelines, stage_records

FIND_SUBMITTED = select(jobs).where(
    or_(
        jobs.c.job_id == bindparam("new_id"),
        and_(
            jobs.c.tenant == bindparam("of_tenant"),
            jobs.c.client_request_id == bindparam("request_id"),
        ),
    )
)
FIND = select(jobs).where(jobs.c.job_id == bindparam("wanted"))
FIND_OF_TENANT = FIND.where(jobs.c.tenant == bindparam("of_tenant"))
LOCK = FIND.with_for_update()
RECORDS_OF = (
    select(stage_records.c.job, *(stage_records.c[f.name] for f in dataclasses.fields(StageRecord)))
    .where(stage_records.c.job.in_(bindparam("rows", expanding=True)))
    .order_by(stage_records.c.job, stage_records.c.position)
)
OUTPUTS_OF = (
    select(outputs.c.job, *(outputs.c[field.name] for field in dataclasses.fields(Output)))
    .where(outputs.c.job.in_(bindparam("rows", expanding=True)))
    .order_by(outputs.c.job, outputs.c.index)
)
EVENTS_AFTER = (
    select(events)
    .where(events.c.job == bindparam("row"), events.c.sequence > bindparam("after"))
    .order_by(events.c.sequence)
    .limit(bindparam("at_most"))
)
ADD_JOB = insert(jobs)
ADD_IMAGES = insert(images)
ADD_EVENT = insert(events)
ADD_OUTPUTS = insert(outputs)
DROP_IMAGES = delete(images).where(images.c.job == bindparam("row"))
CHANGED = (
    "state",
    "stage_status",
    "attempt",
    "version",
    "failures",
    "sequence",
    "event_count",
    "started_at",
    "ended_at",
    "error_reason",
    "error_message",
    "input_bytes",
    "result_bytes",
)
CHANGE = (
    update(jobs)
    .where(jobs.c.id == bindparam("row"))
    .values({name: bindparam(f"new_{name}") for name in CHANGED})
)


def _upsert_pipeline(add: sqlite.Insert | postgresql.Insert) -> Executable:
    return add.on_conflict_do_update(
        index_elements=("name",), set_={"specification": add.excluded.specification}
    )


PUT_PIPELINE = {
    "sqlite": _upsert_pipeline(sqlite.insert(pipelines)),
    "postgresql": _upsert_pipeline(postgresql.insert(pipelines)),
}
FIND_PIPELINE = select(pipelines.c.specification).where(pipelines.c.name == bindparam("name"))


def _upsert(add: sqlite.Insert | postgresql.Insert) -> Executable:
    same = ("job", "stage", "attempt")
    kept = (*same, "position")
    return add.on_conflict_do_update(
        index_elements=same,
        set_={c.name: add.excluded[c.name] for c in stage_records.c if c.name not in kept},
    )


PUT_RECORD = {
    "sqlite": _upsert(sqlite.insert(stage_records)),
    "postgresql": _upsert(postgresql.insert(stage_records)),
}
