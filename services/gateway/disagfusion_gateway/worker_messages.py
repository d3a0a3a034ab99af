"""From the messages of the Work stream to the dispatcher's events, and from actions to messages."""

from __future__ import annotations

from collections.abc import Iterable

from disagfusion.dispatch import actions, events
from disagfusion.jobs.model import FailureKind, InputImage, Output, Stage, StageRecord, StageStatus
from disagfusion.v1 import generation_pb2, stage_pb2


def worker_info(worker: stage_pb2.Worker) -> events.WorkerInfo:
    """Return what dispatch has to know of a worker.

    Raises:
        ValueError: A number stands for nothing that is known here.
    """
    return events.WorkerInfo(
        name=worker.name,
        incarnation=worker.incarnation,
        stages=frozenset(Stage(stage) for stage in worker.stages),
        pipeline=worker.pipeline,
        version=worker.version,
        state=events.WorkerState(worker.state),
        slots=worker.slots,
        pool=worker.pool,
    )


def connected(hello: stage_pb2.WorkerHello) -> events.WorkerConnected:
    """Return a worker's hello as an event.

    Raises:
        ValueError: A number stands for nothing that is known here.
    """
    return events.WorkerConnected(
        worker=worker_info(hello.worker),
        running=_running(hello.running),
        held=tuple(_held(done) for done in hello.held),
        grant_ids=tuple(hello.grant_ids),
    )


def event_of(worker: str, incarnation: str, message: stage_pb2.WorkResponse) -> events.Event | None:
    """Return a message of a worker as an event; None for those that are not about work.

    Raises:
        ValueError: A number stands for nothing that is known here.
    """
    match message.WhichOneof("message"):
        case "grants":
            return events.GrantsOffered(worker, incarnation, tuple(message.grants.grant_ids))
        case "recall":
            return events.GrantsRecalled(worker, incarnation, tuple(message.recall.grant_ids))
        case "handed_over":
            return events.HandedOver(
                worker,
                incarnation,
                running=_running(message.handed_over.running),
                held=tuple(_held(done) for done in message.handed_over.held),
            )
        case "received":
            received = message.received
            return events.InputReceived(
                worker,
                incarnation,
                received.job_id,
                received.attempt,
                received.receive_seconds,
                received.size_bytes,
            )
        case "started":
            started = message.started
            return events.StageStarted(
                worker, incarnation, started.job_id, started.attempt, Stage(started.stage)
            )
        case "step":
            step = message.step
            return events.StepCompleted(
                worker, incarnation, step.job_id, step.attempt, step.step, step.num_inference_steps
            )
        case "done":
            return events.StageDone(worker, incarnation, _held(message.done))
        case "failed":
            return _failed(worker, incarnation, message.failed)
        case "sent":
            sent = message.sent
            return events.OutputSent(
                worker,
                incarnation,
                _key(sent.output),
                sent.attempt,
                sent.send_seconds,
                sent.size_bytes,
                sent.transport,
            )
        case "send_failed":
            failed = message.send_failed
            return events.SendFailed(
                worker,
                incarnation,
                _key(failed.output),
                failed.attempt,
                failed.output_lost,
                failed.message,
            )
        case "state":
            return events.WorkerStateChanged(
                worker_info(message.state.worker), message.state.reason
            )
        case _:
            return None


def _running(
    listed: Iterable[stage_pb2.RunningAssignment],
) -> tuple[events.RunningAssignment, ...]:
    return tuple(
        events.RunningAssignment(
            job_id=running.job_id,
            attempt=running.attempt,
            stage=Stage(running.stage),
            status=StageStatus(running.status),
            step=running.step,
            num_inference_steps=running.num_inference_steps,
        )
        for running in listed
    )


def _failed(worker: str, incarnation: str, failed: stage_pb2.StageFailed) -> events.StageFailed:
    known = int(failed.kind) in {int(kind) for kind in FailureKind}
    return events.StageFailed(
        worker,
        incarnation,
        failed.job_id,
        failed.attempt,
        Stage(failed.stage),
        FailureKind(failed.kind) if known else FailureKind.UNSPECIFIED,
        failed.message,
        _record(failed.record) if failed.HasField("record") else None,
    )


def _held(done: stage_pb2.StageDone) -> events.HeldOutput:
    return events.HeldOutput(
        output=_key(done.output),
        size_bytes=done.size_bytes,
        media=tuple(_output(media) for media in done.media),
        record=_record(done.record) if done.HasField("record") else None,
    )


def _key(key: stage_pb2.OutputKey) -> events.OutputKey:
    return events.OutputKey(key.job_id, Stage(key.stage), key.attempt)


def _output(output: generation_pb2.Output) -> Output:
    return Output(
        index=output.index,
        content_type=output.content_type,
        size_bytes=output.size_bytes,
        height=output.height,
        width=output.width,
        num_frames=output.num_frames,
        sha256=output.sha256,
    )


def _record(record: generation_pb2.StageRecord) -> StageRecord:
    return StageRecord(
        stage=Stage(record.stage),
        attempt=record.attempt,
        worker=record.worker,
        pid=record.pid,
        device=record.device,
        threads=record.threads,
        queue_seconds=record.queue_seconds,
        compute_seconds=record.compute_seconds,
        receive_seconds=record.receive_seconds,
        send_seconds=record.send_seconds,
        bytes_out=record.bytes_out,
        transport=record.transport,
        steps=record.steps,
        outcome=record.outcome or "done",
    )


def key_message(key: events.OutputKey) -> stage_pb2.OutputKey:
    """Return an output's name as a message."""
    return stage_pb2.OutputKey(job_id=key.job_id, stage=_stage(key.stage), attempt=key.attempt)


def assignment_message(
    action: actions.Assign,
    *,
    generation: bytes,
    images: Iterable[InputImage],
    deadline: float | None,
    traceparent: str,
    tenant: str,
) -> stage_pb2.WorkRequest:
    """Return an assignment with all that the stage needs to know of the job.

    Args:
        action: What the dispatcher wants.
        generation: The encoded request without its images.
        images: The request's images.
        deadline: Unix seconds, or None.
        traceparent: W3C trace context.
        tenant: Whose job it is.
    """
    request = generation_pb2.Generation.FromString(generation)
    request.images.extend(
        generation_pb2.InputImage(name=image.name, content=image.content) for image in images
    )
    assignment = stage_pb2.Assignment(
        job_id=action.job_id,
        attempt=action.attempt,
        stage=_stage(action.stage),
        grant_id=action.grant_id,
        generation=request,
        traceparent=traceparent,
        tenant=tenant,
    )
    if action.source is not None:
        assignment.input.CopyFrom(key_message(action.source))
    if deadline is not None:
        assignment.deadline.FromNanoseconds(round(deadline * 1e9))
    return stage_pb2.WorkRequest(assign=assignment)


def send_message(
    action: actions.Send, to: stage_pb2.PeerAddress, traceparent: str
) -> stage_pb2.WorkRequest:
    """Return what tells the holder of an output where to send it."""
    return stage_pb2.WorkRequest(
        send=stage_pb2.SendOutput(
            output=key_message(action.output),
            attempt=action.attempt,
            grant_id=action.grant_id,
            to=to,
            traceparent=traceparent,
        )
    )


def cancel_message(action: actions.CancelOnWorker) -> stage_pb2.WorkRequest:
    """Return what stops a job's work on a worker."""
    return stage_pb2.WorkRequest(
        cancel=stage_pb2.CancelAssignment(job_id=action.job_id, attempt=action.attempt)
    )


def release_message(action: actions.Release) -> stage_pb2.WorkRequest:
    """Return what lets a worker forget what it holds."""
    return stage_pb2.WorkRequest(
        release=stage_pb2.ReleaseOutput(
            job_id=action.job_id, stage=_stage(action.stage), attempt=action.attempt
        )
    )


def return_message(action: actions.ReturnGrants) -> stage_pb2.WorkRequest:
    """Return what gives grants back."""
    return stage_pb2.WorkRequest(return_grants=stage_pb2.ReturnGrants(grant_ids=action.grant_ids))


def _stage(stage: Stage | None) -> generation_pb2.Stage.ValueType:
    return generation_pb2.Stage.ValueType(int(stage) if stage is not None else 0)
