"""Accepted assignments, and what is said about them. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from disagfusion.stage.actions import Product
from disagfusion.stage.inputs import Slot
from disagfusion.stage.lifecycle import EngineLifecycle
from disagfusion.v1 import generation_pb2, stage_pb2

_REMEMBERED = 8192

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(slots=True, eq=False)
class StageJob:
    """An assignment that has not been answered.

    Attributes:
        assignment: As the gateway gave it.
        owner: Name of the gateway.
        slot: Its input slot.
        assigned_at: When it came.
        ready_at: When the input was there, too; None until then.
        started_at: When the engine began; None until then.
        run_id: Of the engine's run, 0 until the engine was given one.
        step: Denoising steps done.
        num_inference_steps: Of how many.
        block: The place of its output, once the engine has asked for one.
        wanted: Bytes that the engine waits for.
        granted: Bytes that the engine got.
        stopped: The kind of failure and the message with which it ends, once the engine was told
            to stop it.
    """

    assignment: stage_pb2.Assignment
    owner: str
    slot: Slot
    assigned_at: float
    ready_at: float | None = None
    started_at: float | None = None
    run_id: int = 0
    step: int = 0
    num_inference_steps: int = 0
    block: int | None = None
    wanted: int | None = None
    granted: int = 0
    stopped: tuple[stage_pb2.FailureKind.ValueType, str] | None = None

    @property
    def job_id(self) -> str:
        """The job."""
        return self.assignment.job_id

    @property
    def form(self) -> tuple[int, ...]:
        """What the size of the output depends on, as far as it is known here."""
        asked = self.assignment.generation
        images = asked.num_images_per_prompt
        return (asked.height, asked.width, asked.num_frames, images, asked.output_format)

    @property
    def attempt(self) -> int:
        """Its attempt."""
        return self.assignment.attempt

    def running(self) -> stage_pb2.RunningAssignment:
        """Return what a gateway that comes back is told."""
        if self.started_at is not None:
            status = generation_pb2.STAGE_STATUS_RUNNING
        elif self.ready_at is not None:
            status = generation_pb2.STAGE_STATUS_WAITING
        else:
            status = generation_pb2.STAGE_STATUS_TRANSFERRING
        return stage_pb2.RunningAssignment(
            job_id=self.job_id,
            attempt=self.attempt,
            stage=self.assignment.stage,
            status=status,
            step=self.step,
            num_inference_steps=self.num_inference_steps,
        )

    def record(
        self, worker: str, engine: EngineLifecycle, now: float, product: Product, outcome: str
    ) -> generation_pb2.StageRecord:
        """Return how the stage ran."""
        ready = self.ready_at if self.ready_at is not None else self.assigned_at
        started = self.started_at if self.started_at is not None else now
        return generation_pb2.StageRecord(
            stage=self.assignment.stage,
            attempt=self.attempt,
            worker=worker,
            pid=engine.pid if self.started_at is not None else 0,
            device=engine.info.device,
            threads=engine.info.threads,
            queue_seconds=max(0.0, started - ready),
            compute_seconds=product.compute_seconds,
            receive_seconds=self.slot.receive_seconds,
            bytes_out=product.nbytes,
            steps=product.steps or self.step,
            outcome=outcome,
        )


class Recent(OrderedDict[Key, Value]):
    """A dictionary that forgets what was not set for long.

    Args:
        limit: How much it remembers.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: Key, value: Value) -> None:
        """Remember something; the oldest is forgotten."""
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self._limit:
            self.popitem(last=False)


class AttemptFloor:
    """The lowest attempt of each job that is still accepted.

    Jobs that were not seen for long are forgotten.
    """

    def __init__(self) -> None:
        self._floor = Recent[str, int](_REMEMBERED)

    def raise_to(self, job_id: str, attempt: int) -> None:
        """Accept nothing below an attempt."""
        self._floor[job_id] = max(attempt, self._floor.get(job_id, 0))

    def admits(self, job_id: str, attempt: int) -> bool:
        """Tell whether an attempt is not superseded."""
        return attempt >= self._floor.get(job_id, 0)


_OUTCOMES = {
    int(number): name.removeprefix("FAILURE_KIND_").lower()
    for name, number in stage_pb2.FailureKind.items()
}


def outcome_of(kind: int) -> str:
    """Return a failure's kind in lower case, "done" where it is none."""
    return _OUTCOMES.get(kind, "internal") if kind else "done"
