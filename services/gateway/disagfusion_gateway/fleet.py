"""What a balancer wants to know: followed from the same events that the dispatcher decides by."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from disagfusion.dispatch import events
from disagfusion.errors import DisagfusionError
from disagfusion.jobs.model import JobState, Stage, StageStatus
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.stage.request import request_values
from disagfusion.v1 import fleet_pb2, generation_pb2, stage_pb2
from disagfusion_gateway.observe import ActiveJob

T = TypeVar("T")

_REMEMBERED = 10_000
_LOST_SECONDS = 3600.0
_STAGES = {
    JobState.QUEUED: Stage.ENCODER,
    JobState.ENCODING: Stage.ENCODER,
    JobState.DENOISING: Stage.DIT,
    JobState.DECODING: Stage.DECODER,
}
_WORKER_EVENTS = (
    events.WorkerConnected,
    events.WorkerDisconnected,
    events.WorkerLost,
    events.WorkerStateChanged,
)


@dataclass(slots=True)
class _Entry:
    """An unfinished job; `stage` is None once the last stage has ended, `version` empty if any."""

    job: ActiveJob
    shape: fleet_pb2.JobShape | None
    stage: Stage | None
    attempt: int
    worker: str = ""
    started: float = 0.0
    version: str = ""


@dataclass(slots=True)
class _Activity:
    ready: int = 0
    running: int = 0
    waiting: int = 0
    busy: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    completed: int = 0

    def advance(self, seconds: float) -> None:
        idle = max(0, self.ready - self.running)
        self.busy += seconds * min(self.running, self.ready)
        # A worker that does nothing while jobs wait is held back by those behind it.
        if self.waiting:
            self.blocked += seconds * idle
        else:
            self.starved += seconds * idle


@dataclass(slots=True)
class _Numbered(Generic[T]):
    """The last of many things, numbered from 1."""

    last: int = 0
    kept: deque[T] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def add(self, one: T) -> None:
        self.last += 1
        self.kept.append(one)

    def since(self, cursor: int) -> tuple[list[T], bool]:
        """Return what came after a number, and whether none of it was forgotten."""
        count = self.last - cursor
        known = list(self.kept)
        return (known[-count:] if count > 0 else []), 0 <= count <= len(known)


class Fleet:
    """Follows jobs and workers.

    Args:
        incarnation: Of the gateway.
        workers: Returns the workers that are connected, as they describe themselves.
        spec: Returns what the pipeline accepts, as soon as that is known.
        now: Unix seconds.
        budget: Accelerators in use at most; 0: not known.
    """

    def __init__(
        self,
        incarnation: str,
        workers: Callable[[], Iterable[stage_pb2.Worker]],
        spec: Callable[[], PipelineSpec | None],
        now: float,
        *,
        budget: int = 0,
    ) -> None:
        self._incarnation = incarnation
        self._budget = budget
        self._workers = workers
        self._spec = spec
        self._entries: dict[str, _Entry] = {}
        self._activities = {stage: _Activity() for stage in Stage}
        self._arrivals: _Numbered[fleet_pb2.JobShape] = _Numbered()
        self._samples: _Numbered[fleet_pb2.StageSample] = _Numbered()
        self._states: dict[str, tuple[object, float]] = {}
        self._described: dict[str, stage_pb2.Worker] = {}
        self._lost: dict[str, tuple[fleet_pb2.LostWorker, float]] = {}
        self._at = now

    def entered(self, job_id: str, job: ActiveJob, now: float, *, new: bool) -> None:
        """Note a job: a new one, or one that was there before the gateway."""
        self._advance(now)
        shape = self._shape(job)
        self._entries[job_id] = _Entry(job, shape, None, job.attempt)
        self._move(self._entries[job_id], _STAGES[job.state])
        if new and shape is not None:
            self._arrivals.add(shape)

    def changed(self, job_id: str, state: JobState, attempt: int, now: float) -> None:
        """Note a durable change of a job."""
        entry = self._entries.get(job_id)
        if entry is None:
            return
        self._advance(now)
        if state.ended:
            self._move(entry, None)
            del self._entries[job_id]
            return
        stage = _STAGES[state]
        if attempt > entry.attempt:
            entry.attempt = attempt
            self._move(entry, stage)
        elif entry.stage is not None and stage > entry.stage:
            self._move(entry, stage)

    def pinned(self, job_id: str, version: str) -> None:
        """Note with which version of model and software a job goes on; empty: with any."""
        entry = self._entries.get(job_id)
        if entry is not None:
            entry.version = version

    def left(self, job_id: str, now: float) -> None:
        """Note a job that is somebody else's now."""
        self.changed(job_id, JobState.CANCELLED, 0, now)

    def happened(self, event: events.Event, now: float) -> None:
        """Follow an event."""
        match event:
            case events.StageStarted(job_id=job_id, attempt=attempt, stage=stage):
                entry = self._entries.get(job_id)
                if entry is not None and attempt >= entry.attempt:
                    self._advance(now)
                    self._move(entry, stage, event.worker, now)
            case events.StageDone(held=held):
                self._done(event.worker, event.incarnation, held, now)
            case events.StageFailed(job_id=job_id):
                entry = self._entries.get(job_id)
                if entry is not None and entry.worker == event.worker:
                    self._advance(now)
                    self._move(entry, entry.stage)
            case events.HandedOver(worker=name, running=running):
                self._advance(now)
                self._adopt(name, running, now)
        if isinstance(event, _WORKER_EVENTS):
            self._advance(now)
            self._recount(event, now)

    def _done(self, worker: str, incarnation: str, held: events.HeldOutput, now: float) -> None:
        key = held.output
        entry = self._entries.get(key.job_id)
        if entry is None or entry.stage is not key.stage:
            return
        self._advance(now)
        following = Stage(key.stage + 1) if key.stage is not Stage.DECODER else None
        self._move(entry, following)
        self._activities[key.stage].completed += 1
        pools = {one.name: one.pool for one in self._workers()}
        seconds = held.record.compute_seconds if held.record else 0.0
        if entry.shape is None:
            entry.shape = self._shape(entry.job)
        if seconds <= 0.0 or entry.shape is None or worker not in pools:
            return
        sample = fleet_pb2.StageSample(
            stage=generation_pb2.Stage.ValueType(key.stage),
            pool=pools[worker],
            shape=entry.shape,
            compute_seconds=seconds,
            worker=worker,
            worker_incarnation=incarnation,
        )
        sample.time.FromNanoseconds(round(now * 1e9))
        self._samples.add(sample)

    def _recount(self, event: events.Event, now: float) -> None:
        workers = {one.name: one for one in self._workers()}
        if isinstance(event, events.WorkerConnected):
            self._adopt(event.worker.name, event.running, now)
            self._forget_others(event)
        if isinstance(event, events.WorkerLost):
            for entry in self._entries.values():
                if entry.worker == event.worker:
                    self._move(entry, entry.stage)
        for activity in self._activities.values():
            activity.ready = 0
        for worker in workers.values():
            if worker.state == stage_pb2.WORKER_STATE_READY:
                for stage in worker.stages:
                    self._activities[Stage(stage)].ready += 1
            state = (worker.incarnation, worker.state, tuple(worker.stages), worker.changes_to)
            if self._states.get(worker.name, (None, 0.0))[0] != state:
                self._states[worker.name] = state, now
        self._states = {name: kept for name, kept in self._states.items() if name in workers}
        self._miss(event, workers, now)

    def _miss(self, event: events.Event, workers: dict[str, stage_pb2.Worker], now: float) -> None:
        self._described |= workers
        for name in workers:
            self._lost.pop(name, None)
        if not isinstance(event, events.WorkerLost) or event.worker in workers:
            return
        known = self._described.pop(event.worker, None)
        if known is None:
            return
        leaves = known.state == stage_pb2.WORKER_STATE_DRAINING and not known.changes_to
        if not leaves:
            lost = fleet_pb2.LostWorker(
                name=known.name, stages=known.stages, pool=known.pool, reason=event.reason
            )
            self._lost[known.name] = lost, now

    def _missed(self, now: float) -> list[fleet_pb2.LostWorker]:
        self._lost = {
            name: kept for name, kept in self._lost.items() if now - kept[1] < _LOST_SECONDS
        }
        for lost, since in self._lost.values():
            lost.seconds = max(0.0, now - since)
        return [lost for lost, _ in self._lost.values()]

    def _adopt(self, worker: str, claims: Iterable[events.RunningAssignment], now: float) -> None:
        """Take over what a worker says it runs; it may have begun before this gateway did."""
        for claim in claims:
            entry = self._entries.get(claim.job_id)
            if entry is None or claim.status is not StageStatus.RUNNING or entry.worker == worker:
                continue
            self._move(entry, claim.stage, worker, now)

    def _forget_others(self, event: events.WorkerConnected) -> None:
        """Take back what was thought to run on a worker that does not."""
        running = {one.job_id for one in event.running if one.status is StageStatus.RUNNING}
        for job_id, entry in self._entries.items():
            if entry.worker == event.worker.name and job_id not in running:
                self._move(entry, entry.stage)

    def _move(self, entry: _Entry, stage: Stage | None, worker: str = "", now: float = 0.0) -> None:
        if entry.stage is not None:
            before = self._activities[entry.stage]
            if entry.worker:
                before.running -= 1
            else:
                before.waiting -= 1
        if stage is not None:
            after = self._activities[stage]
            if worker:
                after.running += 1
            else:
                after.waiting += 1
        entry.stage, entry.worker, entry.started = stage, worker, now

    def _advance(self, now: float) -> None:
        seconds, self._at = now - self._at, max(self._at, now)
        if seconds > 0.0:
            for activity in self._activities.values():
                activity.advance(seconds)

    def _shape(self, job: ActiveJob) -> fleet_pb2.JobShape | None:
        spec = self._spec()
        return None if spec is None else shape_of(job.generation, spec)

    def describe(
        self, request: fleet_pb2.GetFleetRequest, now: float
    ) -> fleet_pb2.GetFleetResponse:
        """Return the fleet as it is, and what has happened since the request's cursors."""
        self._advance(now)
        known = request.incarnation == self._incarnation
        since = (request.arrivals_cursor, request.samples_cursor) if known else (0, 0)
        if request.state_only:
            since = self._arrivals.last, self._samples.last
        arrived, all_arrivals = self._arrivals.since(since[0])
        samples, all_samples = self._samples.since(since[1])
        counts: dict[bytes, fleet_pb2.ArrivedJobs] = {}
        for shape in arrived:
            key = shape.SerializeToString(deterministic=True)
            counts.setdefault(key, fleet_pb2.ArrivedJobs(shape=shape)).count += 1
        answer = fleet_pb2.GetFleetResponse(
            incarnation=self._incarnation,
            workers=[self._worker(one, now) for one in self._workers()],
            jobs=[
                found
                for job_id in self._entries
                for found in self._job(job_id, now, shapeless=request.state_only)
            ],
            unfinished=len(self._entries),
            arrived=counts.values(),
            arrivals_cursor=self._arrivals.last,
            samples=samples,
            samples_cursor=self._samples.last,
            complete=known and all_arrivals and all_samples,
            activities=[
                fleet_pb2.StageActivity(
                    stage=generation_pb2.Stage.ValueType(stage),
                    busy_seconds=one.busy,
                    starved_seconds=one.starved,
                    blocked_seconds=one.blocked,
                    completed=one.completed,
                )
                for stage, one in self._activities.items()
            ],
            lost=self._missed(now),
            budget=self._budget,
        )
        answer.time.FromNanoseconds(round(now * 1e9))
        return answer

    def _job(self, job_id: str, now: float, *, shapeless: bool) -> list[fleet_pb2.FleetJob]:
        entry = self._entries[job_id]
        if entry.shape is None:
            entry.shape = self._shape(entry.job)
        if entry.stage is None or (entry.shape is None and not shapeless):
            return []
        return [
            fleet_pb2.FleetJob(
                job_id=job_id,
                stage=generation_pb2.Stage.ValueType(entry.stage),
                shape=entry.shape,
                age_seconds=max(0.0, now - entry.job.submitted_at),
                worker=entry.worker,
                elapsed_seconds=max(0.0, now - entry.started) if entry.worker else 0.0,
                version=entry.version,
            )
        ]

    def _worker(self, worker: stage_pb2.Worker, now: float) -> fleet_pb2.FleetWorker:
        return fleet_pb2.FleetWorker(
            name=worker.name,
            incarnation=worker.incarnation,
            stages=worker.stages,
            pool=worker.pool,
            state=worker.state,
            reason=worker.reason,
            accelerators=worker.accelerators,
            changes_to=worker.changes_to,
            version=worker.version,
            state_seconds=max(0.0, now - self._states.get(worker.name, (None, now))[1]),
        )


def shape_of(generation: bytes, spec: PipelineSpec) -> fleet_pb2.JobShape | None:
    """Return what decides how long a stored request takes, with the pipeline's defaults.

    Args:
        generation: A `Generation` as it is stored, without images.
        spec: Has the defaults.

    Returns:
        None where the request cannot be read.
    """
    try:
        given = request_values(generation_pb2.Generation.FromString(generation))
    except DisagfusionError:
        return None
    values = {**spec.defaults, **given}

    def number(name: str) -> int:
        value = values.get(name)
        return value if isinstance(value, int) and value > 0 else 1

    return fleet_pb2.JobShape(
        height=number("height"),
        width=number("width"),
        num_frames=number("num_frames"),
        num_inference_steps=number("num_inference_steps"),
        batch_size=number("num_images_per_prompt"),
        sequence_length=number("max_sequence_length"),
    )
