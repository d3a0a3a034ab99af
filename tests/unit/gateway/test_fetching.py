"""Whatever happens to a fetch, the dispatcher is told how it ended."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from disagfusion_gateway.fetching import ResultFetcher
from disagfusion_gateway.sessions import Session, Sessions

from disagfusion.dispatch import actions, events
from disagfusion.errors import ResourceExhaustedError
from disagfusion.jobs.directory_results import DirectoryResultStore
from disagfusion.jobs.model import Output, Stage
from disagfusion.jobs.results import ResultKey, ResultStorageError
from disagfusion.v1 import stage_pb2 as wire

CONTENT = b"picture"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Call:
    """A FetchMedia call: what each read gives, or raises."""

    def __init__(self, *reads: object) -> None:
        self._reads = list(reads)
        self.cancelled = False

    async def read(self) -> object:
        given = self._reads.pop(0)
        if isinstance(given, BaseException):
            raise given
        return given

    def cancel(self) -> None:
        self.cancelled = True


class Results:
    """A place that takes what it is given, or fails."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self._failure = failure
        self.stored: dict[ResultKey, bytes] = {}

    async def write(self, key: ResultKey, output: Output, chunks: AsyncIterable[bytes]) -> None:
        if self._failure is not None:
            raise self._failure
        self.stored[key] = b"".join([chunk async for chunk in chunks])


def chunk(content: bytes) -> wire.FetchMediaResponse:
    return wire.FetchMediaResponse(chunk=content)


async def fetched(results: Any, *calls: Call) -> events.Event:
    """Fetch one output, and return what the dispatcher is told."""
    sessions = Sessions(Mock())
    fetch_media = Mock(side_effect=list(calls))
    worker = wire.Worker(name="decoder-0", incarnation="i")
    sessions.add(Session(worker, Mock(FetchMedia=fetch_media)))
    fetcher = ResultFetcher(sessions, Mock(), results, concurrency=1)
    media = (Output(0, "image/png", len(CONTENT), 1, 1, 1, SHA256),)
    key = events.OutputKey("job-1", Stage.DECODER, 1)
    told: asyncio.Queue[events.Event] = asyncio.Queue()
    action = actions.FetchResult("decoder-0", "i", key, 1, media)
    fetcher.fetch(action, told.put_nowait)
    async with asyncio.timeout(5.0):
        event = await told.get()
    await fetcher.aclose()
    return event


async def test_a_call_that_a_closing_channel_cancels_goes_on_over_the_next() -> None:
    results = Results()
    broken = Call(chunk(CONTENT[:3]), asyncio.CancelledError())
    event = await fetched(results, broken, Call(chunk(CONTENT[3:]), grpc.aio.EOF))
    assert isinstance(event, events.ResultStored)
    assert list(results.stored.values()) == [CONTENT]
    assert broken.cancelled


async def test_a_worker_whose_calls_are_all_cancelled_is_not_reached() -> None:
    event = await fetched(Results(), *(Call(asyncio.CancelledError()) for _ in range(4)))
    assert isinstance(event, events.ResultFailed)
    assert event.failure is events.ResultFailure.UNAVAILABLE


async def test_a_fetch_that_is_ended_here_tells_nothing() -> None:
    reading = asyncio.Event()

    class Silent(Call):
        async def read(self) -> object:
            reading.set()
            return await asyncio.Event().wait()

    posted: list[events.Event] = []
    sessions = Sessions(Mock())
    call = Silent()
    stub = Mock(FetchMedia=Mock(return_value=call))
    sessions.add(Session(wire.Worker(name="decoder-0", incarnation="i"), stub))
    fetcher = ResultFetcher(sessions, Mock(), Results(), concurrency=1)  # type: ignore[arg-type]
    key = events.OutputKey("job-1", Stage.DECODER, 1)
    media = (Output(0, "image/png", len(CONTENT), 1, 1, 1, SHA256),)
    fetcher.fetch(actions.FetchResult("decoder-0", "i", key, 1, media), posted.append)
    await reading.wait()
    await fetcher.aclose()
    assert (posted, call.cancelled) == ([], True)


@pytest.mark.parametrize(
    ("problem", "failure"),
    [
        (ResultStorageError("stale"), events.ResultFailure.STORAGE),
        (ResourceExhaustedError("full"), events.ResultFailure.STORAGE),
        (RuntimeError("a mistake"), events.ResultFailure.UNAVAILABLE),
    ],
)
async def test_a_place_that_fails(problem: Exception, failure: events.ResultFailure) -> None:
    event = await fetched(Results(problem))
    assert isinstance(event, events.ResultFailed)
    assert event.failure is failure
    assert str(problem) in event.message


async def test_a_volume_that_is_away_is_waited_for(tmp_path: Path) -> None:
    def away(_: Path) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    async with DirectoryResultStore(tmp_path, free_bytes=away) as results:
        event = await fetched(results)
    assert isinstance(event, events.ResultFailed)
    assert event.failure is events.ResultFailure.STORAGE
