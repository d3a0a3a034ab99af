"""What the gateway's metrics, logs and traces say of jobs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from disagfusion.dispatch.events import WorkerState
from disagfusion.jobs.model import JobState, Stage, StageStatus
from disagfusion.telemetry import tracing
from disagfusion.telemetry.logging import get_logger
from disagfusion.telemetry.metrics import GatewayMetrics, JobStatus, Outcome
from disagfusion.v1 import stage_pb2

_log = get_logger(__name__)

_STAGES = {
    JobState.ENCODING: Stage.ENCODER,
    JobState.DENOISING: Stage.DIT,
    JobState.DECODING: Stage.DECODER,
}
_OUTCOMES: dict[JobState, Outcome] = {
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "expired",
}
_STATUSES: dict[StageStatus, JobStatus] = {
    StageStatus.WAITING: "waiting",
    StageStatus.TRANSFERRING: "transferring",
    StageStatus.RUNNING: "running",
}


@dataclass(slots=True)
class ActiveJob:
    """What is kept in memory of a job that has not ended.

    Attributes:
        tenant: Whose it is.
        generation: The encoded request without its images.
        has_images: Whether the store has images of it; True where that is not known.
        submitted_at: Unix seconds.
        deadline: Unix seconds, or None.
        traceparent: Of the job's span.
        parent: The caller's traceparent, empty after a restart.
        state: Of the last change that is durable.
        stage_status: Of the last change that is durable.
        attempt: Of the last change that is durable.
    """

    tenant: str
    generation: bytes
    has_images: bool
    submitted_at: float
    deadline: float | None
    traceparent: str
    parent: str = ""
    state: JobState = JobState.QUEUED
    stage_status: StageStatus = StageStatus.WAITING
    attempt: int = 1


class Observer:
    """Counts what happens to jobs and workers.

    Args:
        metrics: Where it is counted.
        pipeline: For traces.
    """

    def __init__(self, metrics: GatewayMetrics, pipeline: str) -> None:
        self._metrics = metrics
        self._pipeline = pipeline
        self._places: set[tuple[str, str]] = set()

    def job_entered(self, job: ActiveJob) -> None:
        """Note a job that is new here."""
        self._count(job, 1)

    def job_accepted(self) -> None:
        """Note that a job was accepted."""
        self._metrics.job_accepted()

    def job_changed(
        self, job: ActiveJob, state: JobState, status: StageStatus, attempt: int
    ) -> None:
        """Note a durable change of a job."""
        self._count(job, -1)
        if attempt > job.attempt:
            stage = _STAGES.get(job.state)
            self._metrics.job_retried(stage.name.lower() if stage else "none", "attempt")
        job.state, job.stage_status, job.attempt = state, status, attempt
        if not state.ended:
            self._count(job, 1)

    def job_left(self, job: ActiveJob) -> None:
        """Note a job that is somebody else's now."""
        self._count(job, -1)

    def job_ended(self, job_id: str, job: ActiveJob, *, time: float, message: str) -> None:
        """Note the end of a job whose state has changed already."""
        outcome = _OUTCOMES[job.state]
        self._metrics.job_ended(outcome, time - job.submitted_at)
        _log.info(
            "job ended",
            job_id=job_id,
            outcome=outcome,
            attempt=job.attempt,
            seconds=round(time - job.submitted_at, 6),
            message=message,
        )
        tracing.record_job(
            traceparent=job.traceparent,
            parent=job.parent,
            start=job.submitted_at,
            end=time,
            attributes={"job_id": job_id, "pipeline": self._pipeline, "attempts": job.attempt},
            error="" if job.state is JobState.SUCCEEDED else message or outcome,
        )

    def committed(self, seconds: float) -> None:
        """Note that a change became durable."""
        self._metrics.store_commit_seconds.observe(seconds)

    def decided(self, seconds: float) -> None:
        """Note how long one decision of the dispatcher took."""
        self._metrics.dispatch_seconds.observe(seconds)

    def refused(self, reason: str) -> None:
        """Note a submission that was not accepted."""
        self._metrics.job_refused(reason)

    def results_stored(self, size: int) -> None:
        """Note how many bytes of results are stored."""
        self._metrics.result_bytes.set(size)

    def stale(self, worker: stage_pb2.Worker | None, message: str, job_id: str) -> None:
        """Note a worker's message that was refused."""
        stages = worker.stages if worker is not None else ()
        self._metrics.stale_result(Stage(stages[0]).name.lower() if stages else "unknown")
        name = worker.name if worker is not None else ""
        _log.info("stale message refused", worker=name, job_id=job_id, kind=message)

    def workers(self, workers: list[stage_pb2.Worker]) -> None:
        """Set how many workers are connected, by stage, pool and state."""
        counts = Counter(
            (Stage(stage).name.lower(), worker.pool, WorkerState(worker.state).name.lower())
            for worker in workers
            for stage in worker.stages
        )
        self._places |= {(stage, pool) for stage, pool, _ in counts}
        for stage, pool in self._places:
            for state in WorkerState:
                labels = (stage, pool, state.name.lower())
                self._metrics.workers(*labels).set(counts[labels])

    def _count(self, job: ActiveJob, amount: int) -> None:
        stage = _STAGES.get(job.state)
        if stage is None:
            self._metrics.queue.inc(amount)
        else:
            status = _STATUSES[job.stage_status]
            self._metrics.stage_jobs(stage.name.lower(), status).inc(amount)
