"""What the core's queue is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from disagfusion.dispatch import events
from disagfusion.jobs.model import Job
from disagfusion.v1 import stage_pb2
from disagfusion_gateway.observe import ActiveJob
from disagfusion_gateway.sessions import Session


@dataclass(slots=True, eq=False)
class Step:
    """An action that waits for its turn.

    Attributes:
        job_id: Whose it is; empty where it is no job's.
        carry_out: Called with what `ready` returned, or None where there is nothing to wait for.
        ready: What must be done before.
    """

    job_id: str
    carry_out: Callable[[Any], None]
    ready: asyncio.Task[Any] | None = None


def active_job(job: Job, *, has_images: bool, parent: str = "") -> ActiveJob:
    """Return what is kept in memory of a stored job."""
    return ActiveJob(
        tenant=job.tenant,
        generation=job.generation,
        has_images=has_images,
        submitted_at=job.submitted_at,
        deadline=job.deadline,
        traceparent=job.traceparent,
        parent=parent,
    )


def submitted(job: Job) -> events.JobSubmitted:
    """Return a stored job as an event."""
    return events.JobSubmitted(
        job_id=job.job_id,
        tenant=job.tenant,
        pipeline=job.pipeline,
        priority=job.priority,
        deadline=job.deadline,
        cost_key=job.cost_key,
        num_inference_steps=job.num_inference_steps,
    )


def nothing(_: Any) -> None:
    """Carry out nothing."""


async def settled(task: asyncio.Task[Any]) -> None:
    """Wait for a task, however it ends."""
    await asyncio.gather(task, return_exceptions=True)


def sender(session: Session | None, message: stage_pb2.WorkRequest) -> Callable[[Any], None]:
    """Return what sends a message in a session, if there is one."""

    def send(_: Any) -> None:
        if session is not None:
            session.send(message)

    return send
