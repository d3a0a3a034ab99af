"""Those who watch jobs: what they are told once it is durable, and how slow ones are bounded."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Generator
from contextlib import contextmanager

from disagfusion.dispatch.actions import Publish
from disagfusion.jobs.model import JobEvent

MAX_BUFFERED = 256


class Watcher:
    """One who watches a job.

    Durable events are buffered up to a bound, beyond which `missed` says that they have to be
    read from the store; of progress only the latest is kept.
    """

    def __init__(self) -> None:
        self._buffer: deque[JobEvent | Publish] = deque()
        self._wakeup = asyncio.Event()
        self._closed = False
        self.missed = False

    def tell(self, event: JobEvent | Publish) -> None:
        """Add an event; never waits."""
        if isinstance(event, Publish) and self._buffer and isinstance(self._buffer[-1], Publish):
            self._buffer.pop()
        if len(self._buffer) >= MAX_BUFFERED:
            self._buffer.clear()
            self.missed = True
        self._buffer.append(event)
        self._wakeup.set()

    def close(self) -> None:
        """Let `next_event` return None from now on."""
        self._closed = True
        self._wakeup.set()

    async def next_event(self) -> JobEvent | Publish | None:
        """Return the next event, None when the gateway goes away."""
        while not self._buffer:
            if self._closed:
                return None
            self._wakeup.clear()
            await self._wakeup.wait()
        return self._buffer.popleft()


class Watchers:
    """All who watch jobs."""

    def __init__(self) -> None:
        self._by_job: defaultdict[str, set[Watcher]] = defaultdict(set)
        self._closed = False

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs that are watched."""
        return tuple(self._by_job)

    @contextmanager
    def watching(self, job_id: str) -> Generator[Watcher]:
        """Be told of the events of a job that become durable from now on."""
        watcher = Watcher()
        if self._closed:
            watcher.close()
        self._by_job[job_id].add(watcher)
        try:
            yield watcher
        finally:
            self._by_job[job_id].discard(watcher)
            if not self._by_job[job_id]:
                del self._by_job[job_id]

    def publish(self, event: JobEvent | Publish) -> None:
        """Tell those who watch the job."""
        for watcher in self._by_job.get(event.job_id, ()):
            watcher.tell(event)

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        for watchers in self._by_job.values():
            for watcher in watchers:
                watcher.close()
