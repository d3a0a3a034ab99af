"""Between the SDK's values and the messages of the public API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from disagfusion.client.types import (
    Generation,
    InputImage,
    Job,
    JobEvent,
    JobState,
    Output,
    OutputFormat,
    ParameterValue,
    Progress,
    Stage,
    StageRecord,
    StageStatus,
    Submission,
)
from disagfusion.errors import UnimplementedError
from disagfusion.rpc.errors import from_status
from disagfusion.v1 import generation_pb2 as pb

_OPTIONAL = (
    "negative_prompt",
    "height",
    "width",
    "num_frames",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "num_images_per_prompt",
)
_FORMATS = {
    OutputFormat.PNG: pb.OUTPUT_FORMAT_PNG,
    OutputFormat.JPEG: pb.OUTPUT_FORMAT_JPEG,
    OutputFormat.WEBP: pb.OUTPUT_FORMAT_WEBP,
    OutputFormat.MP4: pb.OUTPUT_FORMAT_MP4,
}
_STATES = {pb.JobState.Value(f"JOB_STATE_{state}"): state for state in JobState}
_STATE_NUMBERS = {state: number for number, state in _STATES.items()}
_STATUSES = {pb.StageStatus.Value(f"STAGE_STATUS_{status}"): status for status in StageStatus}
_STAGES = {pb.Stage.Value(f"STAGE_{stage.name}"): stage for stage in Stage}
_FORMAT_NAMES = {number: name for name, number in _FORMATS.items()}


def submit_request(submission: Submission) -> pb.SubmitJobRequest:
    """Return a submission as a message."""
    message = pb.SubmitJobRequest(
        generation=_generation_message(submission.generation),
        priority=submission.priority,
        client_request_id=submission.client_request_id,
        pipeline=submission.pipeline,
    )
    if submission.timeout is not None:
        message.timeout.FromNanoseconds(round(submission.timeout * 1e9))
    return message


def _generation_message(generation: Generation) -> pb.Generation:
    message = pb.Generation(
        prompt=generation.prompt,
        images=[pb.InputImage(name=one.name, content=one.content) for one in generation.images],
    )
    for name in _OPTIONAL:
        value = getattr(generation, name)
        if value is not None:
            setattr(message, name, value)
    if generation.output_format is not None:
        message.output_format = _FORMATS[generation.output_format]
    for name, value in generation.parameters.items():
        message.parameters[name].CopyFrom(_parameter_message(value))
    return message


def _parameter_message(value: ParameterValue) -> pb.ParameterValue:
    match value:
        case bool():
            return pb.ParameterValue(bool_value=value)
        case int():
            return pb.ParameterValue(int_value=value)
        case float():
            return pb.ParameterValue(double_value=value)
        case str():
            return pb.ParameterValue(string_value=value)
    values = [_parameter_message(one) for one in value]
    return pb.ParameterValue(list_value=pb.ParameterList(values=values))


def _parameter(message: pb.ParameterValue) -> ParameterValue:
    match message.WhichOneof("kind"):
        case "bool_value":
            return message.bool_value
        case "int_value":
            return message.int_value
        case "double_value":
            return message.double_value
        case "list_value":
            return tuple(_parameter(one) for one in message.list_value.values)
    return message.string_value


def generation_from(message: pb.Generation) -> Generation:
    """Return what was asked for."""
    optional = {
        name: getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]
        for name in _OPTIONAL
    }
    return Generation(
        prompt=message.prompt,
        images=tuple(InputImage(one.name, one.content) for one in message.images),
        output_format=_FORMAT_NAMES.get(message.output_format),
        parameters={name: _parameter(value) for name, value in message.parameters.items()},
        **optional,
    )


def job_from(message: pb.Job) -> Job:
    """Return a job."""
    return Job(
        id=message.job_id,
        state=_state(message),
        generation=generation_from(message.generation),
        attempt=message.attempt,
        stage_status=_stage_status(message),
        progress=_progress(message),
        client_request_id=message.client_request_id,
        tenant=message.tenant,
        priority=message.priority,
        submitted_at=_time(message, "submitted_at"),
        started_at=_time(message, "started_at"),
        ended_at=_time(message, "ended_at"),
        deadline=_time(message, "deadline"),
        outputs=tuple(_output(one) for one in message.outputs),
        error=from_status(message.error) if message.HasField("error") else None,
        stages=tuple(_record(one) for one in message.stages),
        accelerator_seconds=message.accelerator_seconds,
    )


def event_from(message: pb.JobEvent) -> JobEvent:
    """Return an event."""
    return JobEvent(
        sequence=message.sequence,
        state=_state(message),
        time=_time(message, "time"),
        stage_status=_stage_status(message),
        attempt=message.attempt,
        progress=_progress(message),
        message=message.message,
        job=job_from(message.job) if message.HasField("job") else None,
    )


def state_values(states: Sequence[JobState]) -> list[pb.JobState.ValueType]:
    """Return states as the protocol numbers them."""
    return [_STATE_NUMBERS[JobState(state)] for state in states]


def _state(message: pb.Job | pb.JobEvent) -> JobState:
    state = _STATES.get(message.state)
    if state is None:
        raise UnimplementedError(
            f"the service knows a job state ({message.state}) that this version does not"
        )
    return state


def _stage_status(message: pb.Job | pb.JobEvent) -> StageStatus | None:
    ended = _state(message).ended
    return None if ended else _STATUSES.get(message.stage_status)


def _progress(message: pb.Job | pb.JobEvent) -> Progress | None:
    progress = message.progress
    if not message.HasField("progress") or not progress.stage:
        return None
    return Progress(_STAGES[progress.stage], progress.step, progress.num_inference_steps)


def _output(message: pb.Output) -> Output:
    return Output(
        index=message.index,
        content_type=message.content_type,
        size_bytes=message.size_bytes,
        height=message.height,
        width=message.width,
        num_frames=message.num_frames,
        sha256=message.sha256,
    )


def _record(message: pb.StageRecord) -> StageRecord:
    return StageRecord(
        stage=_STAGES[message.stage],
        attempt=message.attempt,
        worker=message.worker,
        pid=message.pid,
        device=message.device,
        threads=message.threads,
        queue_seconds=message.queue_seconds,
        compute_seconds=message.compute_seconds,
        receive_seconds=message.receive_seconds,
        send_seconds=message.send_seconds,
        bytes_out=message.bytes_out,
        transport=message.transport,
        steps=message.steps,
        outcome=message.outcome,
    )


def _time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    return value.ToDatetime(tzinfo=UTC)
