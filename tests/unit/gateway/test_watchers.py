from __future__ import annotations

import asyncio

from disagfusion_gateway.watchers import MAX_BUFFERED, Watchers

from disagfusion.dispatch.actions import Publish
from disagfusion.jobs.model import JobEvent, JobState, Progress, Stage, StageStatus


def durable(sequence: int, job_id: str = "j") -> JobEvent:
    return JobEvent(job_id, sequence, 0.0, JobState.DENOISING, StageStatus.RUNNING, 1)


def step(number: int) -> Publish:
    progress = Progress(Stage.DIT, number, 100)
    return Publish("j", JobState.DENOISING, StageStatus.RUNNING, 1, progress)


async def test_only_those_who_watch_the_job_are_told() -> None:
    watchers = Watchers()
    with watchers.watching("j") as first, watchers.watching("j") as second:
        watchers.publish(durable(1))
        watchers.publish(durable(1, "other"))
        assert await first.next_event() == durable(1)
        assert await second.next_event() == durable(1)
        waiting = asyncio.ensure_future(first.next_event())
        await asyncio.sleep(0)
        assert not waiting.done()
        watchers.publish(durable(2))
        assert await waiting == durable(2)
    watchers.publish(durable(3))


async def test_of_progress_a_slow_watcher_gets_the_latest() -> None:
    watchers = Watchers()
    with watchers.watching("j") as watcher:
        watchers.publish(durable(1))
        for number in range(1, 10_000):
            watchers.publish(step(number))
        watchers.publish(durable(2))
        assert [await watcher.next_event() for _ in range(3)] == [
            durable(1),
            step(9999),
            durable(2),
        ]


async def test_what_a_slow_watcher_has_missed_shows_as_a_gap() -> None:
    watchers = Watchers()
    with watchers.watching("j") as watcher:
        for sequence in range(1, MAX_BUFFERED + 2):
            watchers.publish(durable(sequence))
        assert await watcher.next_event() == durable(MAX_BUFFERED + 1)


async def test_the_end_comes_after_what_was_told() -> None:
    watchers = Watchers()
    with watchers.watching("j") as watcher:
        watchers.publish(durable(1))
        watchers.close()
        assert await watcher.next_event() == durable(1)
        assert await watcher.next_event() is None
    with watchers.watching("j") as late:
        assert await late.next_event() is None
