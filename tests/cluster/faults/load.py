"""Jobs that are under way while something breaks, and what must have become of them."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from disagfusion.client import AsyncClient, AsyncJobHandle, Job, JobState, StageRecord
from disagfusion.emulation.picture import draw
from disagfusion.errors import DisagfusionError
from disagfusion.v1 import generation_pb2
from tests.cluster.operator.pipelines import Pipelines, emulated, eventually

FIRST = 60
"""Jobs that are submitted at once; more come as they end, so that so many are under way."""
LEAST = 50
"""So many must be under way when something breaks."""
_EVERY = 1.0
_OFTEN = 0.1
"""Seconds until the next job where fewer than `FIRST` are under way."""
_PATIENCE = 600.0
_SIZE = 64


def picture(job: str, seed: int, pool: str = "small") -> str:
    """Return the hash of the picture that an undisturbed run makes of a job."""
    lines = (
        f"emulated on {pool}, 1 of 1",
        f"{_SIZE} x {_SIZE}, 1 steps",
        f"seed {seed}",
        f"job {job}",
    )
    return hashlib.sha256(draw(lines, generation_pb2.OUTPUT_FORMAT_PNG)).hexdigest()


def last_records(job: Job) -> dict[str, StageRecord]:
    """Return where each stage of a job was done in the end."""
    return {record.stage: record for record in job.stages if record.outcome == "done"}


@dataclass
class Load:
    """Submits jobs from a thread, waits for each, and fetches its picture.

    `FIRST` jobs come at once. Then one comes whenever fewer than these are under way, and one a
    second at least, until `check` or `stop`.

    Attributes:
        address: Of a gateway.
        first: Jobs that come at once.
        leaves: The gateway goes with the last job: pictures are not fetched, the hash in the
            job's last event must do.
        accepted: Identifier of each job and its seed.
        ended: The jobs that have ended.
        failures: What went wrong for the client.
    """

    address: str
    first: int = FIRST
    leaves: bool = False
    accepted: dict[str, int] = field(default_factory=dict)
    ended: dict[str, Job] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)
    _fetched: dict[str, str] = field(default_factory=dict)
    _enough: threading.Event = field(default_factory=threading.Event)
    _complete: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._enough.set()

    @property
    def under_way(self) -> int:
        """Jobs that were accepted and have not ended."""
        return len(self.accepted) - len(self.ended)

    def wait_busy(self) -> None:
        """Wait until enough jobs are under way, some of them in every stage."""
        eventually("all are submitted", 60, lambda: len(self.accepted) >= self.first)
        eventually("the first have ended", 60, lambda: self.ended)
        self.assert_busy()

    def assert_busy(self) -> None:
        """Check that enough jobs are under way: to be called where something breaks."""
        assert self.under_way >= LEAST, f"only {self.under_way} jobs are under way"

    def wait_ended(self, more: int, seconds: float) -> None:
        """Wait until so many more jobs have ended than by now."""
        goal = len(self.ended) + more
        eventually(f"{more} more jobs end", seconds, lambda: len(self.ended) >= goal)

    def stop(self) -> None:
        """Submit no more, and wait until what is being submitted has been answered."""
        self._enough.set()
        assert self._complete.wait(60), "a job is still being submitted"

    def check(self, seconds: float = 240.0) -> list[Job]:
        """Wait for all jobs and compare them with what an undisturbed run gives; return them."""
        self._enough.set()
        assert self._thread is not None
        until = time.monotonic() + seconds
        self._thread.join(seconds)
        assert not self._thread.is_alive(), (
            f"{self.under_way} of {len(self.accepted)} jobs have not ended after"
            f" {seconds + time.monotonic() - until:.0f} s; {self.failures}"
        )
        assert not self.failures
        assert len(self.accepted) >= self.first
        assert set(self.ended) == set(self.accepted)
        states = {job.id: (job.state, job.error) for job in self.ended.values()}
        assert {state for state, _ in states.values()} == {JobState.SUCCEEDED}, states
        expected = {job: picture(job, seed) for job, seed in self.accepted.items()}
        assert {job.id: job.outputs[0].sha256 for job in self.ended.values()} == expected
        if not self.leaves:
            assert self._fetched == expected
            assert self.listed == set(self.accepted), "a job was submitted twice or is gone"
        return list(self.ended.values())

    async def _run(self) -> None:
        try:
            async with AsyncClient(self.address, timeout=_PATIENCE) as client:
                async with asyncio.TaskGroup() as group:
                    await self._submit(client, group)
                if not self.leaves:
                    self.listed = {job.id async for job in client.jobs()}
        except* (DisagfusionError, OSError) as group:
            self.failures += [repr(error) for error in group.exceptions]

    async def _submit(self, client: AsyncClient, group: asyncio.TaskGroup) -> None:
        seed = 0
        while not (self._enough.is_set() and seed >= self.first):
            seed += 1
            options: dict[str, Any] = {"height": _SIZE, "width": _SIZE, "seed": seed}
            handle = await client.submit(f"number {seed}", **options)
            self.accepted[handle.id] = seed
            group.create_task(self._follow(handle))
            if seed >= self.first:
                await self._pause()
        self._complete.set()

    async def _pause(self) -> None:
        until = time.monotonic() + _EVERY
        while time.monotonic() < until and not self._enough.is_set():
            await asyncio.sleep(_OFTEN)
            if self.under_way < self.first:
                return

    async def _follow(self, handle: AsyncJobHandle) -> None:
        async for _ in handle.events():
            pass
        job = handle.job
        if not self.leaves and job.state is JobState.SUCCEEDED:
            (file,) = (await handle.result()).outputs
            self._fetched[job.id] = hashlib.sha256(file.content).hexdigest()
        self.ended[job.id] = job


def address_of(pipelines: Pipelines, name: str) -> str:
    """Return where this machine reaches a pipeline's gateway."""
    service = pipelines.json("get", "service", name)
    return f"{service['spec']['clusterIP']}:7420"


def two(name: str, **spec: Any) -> dict[str, Any]:
    """Return a pipeline that does two jobs a second, one on each node where there are two."""
    stages = spec.pop("stages", {})
    return emulated(
        name,
        stages={**stages, "dit": {"minReplicas": 2, **stages.get("dit", {})}},
        **spec,
    )


def met(job: Job, versions: dict[str, str]) -> set[str]:
    """Return the versions of the pods that made a job's result.

    Args:
        job: Which.
        versions: ReplicaSet → version.
    """
    pods = [record.worker for record in last_records(job).values()]
    assert len(pods) == 3, f"{job.id} was in {pods}"
    return {versions[pod.rpartition("-")[0]] for pod in pods}
