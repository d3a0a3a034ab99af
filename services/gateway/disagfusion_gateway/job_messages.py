"""From jobs as they are stored to the messages of the public API."""

from __future__ import annotations

import dataclasses

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from disagfusion.errors import (
    DeadlineExceededError,
    DisagfusionError,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
)
from disagfusion.jobs.model import Job, JobError, JobEvent, JobState, Output, StageRecord
from disagfusion.rpc.errors import to_status
from disagfusion.v1 import generation_pb2 as pb


def job_message(job: Job) -> pb.Job:
    """Return a job as a message; its images are left out."""
    message = pb.Job(
        job_id=job.job_id,
        state=pb.JobState.ValueType(int(job.state)),
        stage_status=pb.StageStatus.ValueType(int(job.stage_status)),
        attempt=job.attempt,
        generation=pb.Generation.FromString(job.generation),
        client_request_id=job.client_request_id,
        tenant=job.tenant,
        priority=job.priority,
        submitted_at=timestamp(job.submitted_at),
        outputs=[_output_message(output) for output in job.outputs],
        stages=[_record_message(record) for record in job.stages],
        accelerator_seconds=job.accelerator_seconds,
    )
    for field in ("started_at", "ended_at", "deadline"):
        value: float | None = getattr(job, field)
        if value is not None:
            getattr(message, field).CopyFrom(timestamp(value))
    if job.error is not None and job.state is not JobState.CANCELLED:
        message.error.CopyFrom(_error_status(job.error))
    return message


def event_message(event: JobEvent) -> pb.JobEvent:
    """Return a durable event as a message."""
    return pb.JobEvent(
        sequence=event.sequence,
        time=timestamp(event.time),
        state=pb.JobState.ValueType(int(event.state)),
        stage_status=pb.StageStatus.ValueType(int(event.stage_status)),
        attempt=event.attempt,
        message=event.message,
    )


def timestamp(seconds: float) -> Timestamp:
    """Return Unix seconds as a message."""
    message = Timestamp()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def _output_message(output: Output) -> pb.Output:
    fields = dataclasses.asdict(output)
    del fields["stored"]
    return pb.Output(**fields)


def _record_message(record: StageRecord) -> pb.StageRecord:
    fields = dataclasses.asdict(record)
    return pb.StageRecord(**{**fields, "stage": int(record.stage)})


def _error_status(error: JobError) -> Status:
    """Return why a job ended as the status of the exception that a caller would get."""
    exception: DisagfusionError
    match error.reason:
        case "INVALID_ARGUMENT":
            exception = InvalidArgumentError("generation", error.message)
        case "DEADLINE_EXCEEDED":
            exception = DeadlineExceededError(error.message)
        case "CANCELLED":
            exception = JobCancelledError(error.message)
        case _:
            exception = JobFailedError(error.message, metadata={"cause": error.reason})
    return to_status(exception)
