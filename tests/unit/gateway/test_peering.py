"""Living with other gateways: what a failure costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import pytest
from disagfusion_gateway import peering
from disagfusion_gateway.peering import Peering
from disagfusion_gateway.watchers import Watchers

from disagfusion.errors import DataLossError, DisagfusionError, UnavailableError
from disagfusion.jobs.model import JobEvent, JobState, StageStatus
from disagfusion.jobs.peers import Adopted, LeaseLostError, News

EVENT = JobEvent("job-1", 1, 0.0, JobState.QUEUED, StageStatus.WAITING, 1)


class FakePeers:
    """Other gateways; what is in a list is raised or answered, then its last again."""

    def __init__(self) -> None:
        self.beats: list[Mapping[str, int] | DisagfusionError] = [{"me": 1}]
        self.told: list[News | DisagfusionError] = [News()]
        self.dead: list[Mapping[str, int]] = []

    async def beat(self) -> Mapping[str, int]:
        return answered(self.beats)

    async def adopt(self, dead: Mapping[str, int]) -> Adopted:
        self.dead.append(dead)
        return Adopted()

    async def owned(self) -> frozenset[str]:
        return frozenset()

    async def news(self, watched: Collection[str]) -> News:
        return answered(self.told)


def answered(answers: list[Any]) -> Any:
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, DisagfusionError):
        raise answer
    return answer


class Bench:
    """A peering that goes on at once instead of after a while."""

    def __init__(self) -> None:
        self.peers = FakePeers()
        self.watchers = Watchers()
        self.core = Mock(**{"knows.return_value": False})
        self.peering = Peering(
            "me",
            self.peers,  # type: ignore[arg-type]
            Mock(),
            self.core,
            Mock(),
            self.watchers,
            lease=0.005,
            count_tenants=False,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.peering.run())
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(peering, "_NEWS_SECONDS", 0.0)
    return Bench()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize("error", [UnavailableError("away"), DataLossError("cannot hold this")])
async def test_news_that_fail_are_asked_for_again(bench: Bench, error: DisagfusionError) -> None:
    bench.peers.told = [error, News(events=(EVENT,))]
    with bench.watchers.watching("job-1") as watcher:
        async with bench.running() as task:
            assert await watcher.next_event() == EVENT
            assert not task.done()


async def test_a_lease_that_is_lost_ends_it(bench: Bench) -> None:
    bench.peers.beats = [LeaseLostError("theirs now")]
    async with bench.running() as task:
        with pytest.raises(ExceptionGroup) as caught:
            await task
    assert caught.group_contains(LeaseLostError)


async def test_after_an_outage_others_may_come_back_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peering, "_REUNION_SECONDS", 0.0025)
    silent = {"b": 7}
    bench.peers.beats = [*[silent] * 4, UnavailableError("away"), silent]
    async with bench.running():
        await until(lambda: {"b": 7} in bench.peers.dead)
    # Five looks as ever, and those of three intervals.
    assert bench.peers.dead.index({"b": 7}) == 4 + 3 + 5
