"""Retries, resumption and verification, against a transport that fails by a script."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence

import pytest

from disagfusion.client import (
    AsyncClient,
    ClientTransport,
    Generation,
    Job,
    JobEvent,
    JobPage,
    JobState,
    Output,
    Pipeline,
    RetryPolicy,
    Submission,
)
from disagfusion.client.session import Session
from disagfusion.errors import (
    DataLossError,
    DeadlineExceededError,
    DisagfusionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)

AWAY = UnavailableError("away")
AT_ONCE = RetryPolicy(initial=0.0)


class Scripted(ClientTransport):
    """Each call takes the next step of the script; an exception in it is raised."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.calls: list[tuple[object, ...]] = []

    def _next(self, *call: object) -> object:
        self.calls.append(call)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def submit(self, submission: Submission) -> Job:
        return self._next("submit", submission.client_request_id)  # type: ignore[return-value]

    async def get(self, job_id: str) -> Job:
        return self._next("get", job_id)  # type: ignore[return-value]

    async def watch(self, job_id: str, after_sequence: int) -> AsyncGenerator[JobEvent, None]:
        for step in self._next("watch", after_sequence):  # type: ignore[attr-defined]
            if isinstance(step, Exception):
                raise step
            yield step

    async def cancel(self, job_id: str) -> Job:
        return self._next("cancel", job_id)  # type: ignore[return-value]

    async def list(self, page_size: int, page_token: str, states: Sequence[JobState]) -> JobPage:
        return self._next("list", page_token)  # type: ignore[return-value]

    async def fetch(self, job_id: str, index: int, offset: int) -> AsyncGenerator[bytes, None]:
        for step in self._next("fetch", offset):  # type: ignore[attr-defined]
            if isinstance(step, Exception):
                raise step
            yield step

    async def pipeline(self, name: str) -> Pipeline:
        return self._next("pipeline", name)  # type: ignore[return-value]

    async def close(self) -> None:
        self.calls.append(("close",))


def job(state: JobState = JobState.QUEUED, **changes: object) -> Job:
    return Job("j", state, Generation("x"), **changes)  # type: ignore[arg-type]


def client(transport: ClientTransport, timeout: float = 30.0) -> AsyncClient:
    return AsyncClient(transport=transport, retry=AT_ONCE, timeout=timeout)


async def test_a_submission_is_repeated_under_the_same_id() -> None:
    transport = Scripted(AWAY, AWAY, job())
    handle = await client(transport).submit("x")
    assert handle.id == "j"
    assert len(set(transport.calls)) == 1
    assert len(transport.calls) == 3


async def test_two_submissions_have_two_ids() -> None:
    transport = Scripted(job(), job())
    await client(transport).submit("x")
    await client(transport).submit("x")
    assert len(set(transport.calls)) == 2


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError("height", "is 3"),
        NotFoundError("no"),
        InternalError("no"),
        DeadlineExceededError("no"),
        ResourceExhaustedError("the queue is full, and who knows for how long"),
    ],
)
async def test_what_is_no_accident_is_not_repeated(error: DisagfusionError) -> None:
    transport = Scripted(error)
    with pytest.raises(type(error)) as caught:
        await client(transport).job("j")
    assert caught.value is error


async def test_a_full_queue_is_tried_again_when_it_says_when() -> None:
    transport = Scripted(ResourceExhaustedError("full", retry_after=0.01), job())
    assert (await client(transport).job("j")).id == "j"


async def test_nothing_is_waited_for_that_lies_beyond_the_timeout() -> None:
    error = UnavailableError("back tomorrow", retry_after=86400.0)
    with pytest.raises(UnavailableError, match="tomorrow"):
        await client(Scripted(error)).job("j")


def test_the_back_off_has_full_jitter_and_honours_the_service() -> None:
    policy = RetryPolicy(initial=1.0, multiplier=2.0, maximum=5.0)
    bounds: list[float | None] = []
    for repetition in (1, 2, 3, 4, 5000):
        bounds.append(policy.delay(repetition, AWAY, lambda low, high: high))
        assert policy.delay(repetition, AWAY, lambda low, high: low) == 0.0
    assert bounds == [1.0, 2.0, 4.0, 5.0, 5.0]
    told = UnavailableError("", retry_after=7.0)
    assert policy.delay(1, told, lambda low, high: high) == 8.0


async def test_silence_ends_with_the_timeout() -> None:
    class Silent(Scripted):
        async def get(self, job_id: str) -> Job:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(DeadlineExceededError, match=r"no answer within 0\.01 s"):
        await client(Silent(), timeout=0.01).job("j")


async def test_events_go_on_after_the_last_one_seen() -> None:
    first = [JobEvent(1, JobState.QUEUED), JobEvent(2, JobState.ENCODING), AWAY]
    second: list[object] = [AWAY]
    third: list[object] = []  # ended without the last event
    last = [
        JobEvent(3, JobState.DENOISING),
        JobEvent(3, JobState.DENOISING),
        JobEvent(4, JobState.SUCCEEDED, job=job(JobState.SUCCEEDED)),
    ]
    transport = Scripted(job(), first, second, third, last)
    handle = await client(transport).submit("x")
    seen = [event.sequence async for event in handle.events()]
    assert seen == [1, 2, 3, 3, 4]
    assert transport.calls[1:] == [("watch", 0), ("watch", 2), ("watch", 2), ("watch", 2)]
    assert handle.job.state is JobState.SUCCEEDED


async def test_events_end_with_what_is_no_accident() -> None:
    transport = Scripted(job(), [JobEvent(1, JobState.QUEUED), NotFoundError("removed")])
    handle = await client(transport).submit("x")
    with pytest.raises(NotFoundError):
        await handle.result()


async def test_a_service_that_stays_away_is_given_up() -> None:
    session = Session(Scripted(*[[AWAY]] * 10_000), 0.05, RetryPolicy(initial=0.01))
    with pytest.raises(UnavailableError):
        async for _ in session.events("j", 0):
            pass


CONTENT = bytes(range(256)) * 10


def output(content: bytes = CONTENT) -> Output:
    digest = hashlib.sha256(content).hexdigest()
    return Output(0, "image/png", len(content), 1, 1, 1, digest)


async def test_a_fetch_goes_on_where_it_broke_off() -> None:
    transport = Scripted([CONTENT[:100], CONTENT[100:300], AWAY], AWAY, [], [CONTENT[300:]])
    assert await Session(transport, 30.0, AT_ONCE).fetch("j", output()) == CONTENT
    assert transport.calls == [("fetch", 0), ("fetch", 300), ("fetch", 300), ("fetch", 300)]


@pytest.mark.parametrize(
    "arrived", [CONTENT[:-1] + b"\0", CONTENT + b"more", b"\1" + CONTENT[1:]], ids=len
)
async def test_damaged_bytes_are_refused(arrived: bytes) -> None:
    with pytest.raises(DataLossError):
        await Session(Scripted([arrived]), 30.0, AT_ONCE).fetch("j", output())


async def test_an_empty_output_is_not_asked_for() -> None:
    assert await Session(Scripted(), 30.0).fetch("j", output(b"")) == b""


async def test_jobs_are_listed_page_by_page() -> None:
    transport = Scripted(JobPage((job(), job()), "next"), AWAY, JobPage((job(),)))
    assert len([one async for one in client(transport).jobs()]) == 3
    assert transport.calls == [("list", ""), ("list", "next"), ("list", "next")]


async def test_a_generation_nobody_waits_for_is_cancelled() -> None:
    class Stuck(Scripted):
        async def watch(self, job_id: str, after_sequence: int) -> AsyncGenerator[JobEvent, None]:
            self.calls.append(("watch",))
            await asyncio.Event().wait()
            yield JobEvent(1, JobState.QUEUED)

    transport = Stuck(job(), job(JobState.CANCELLED))
    task = asyncio.create_task(client(transport).generate("x"))
    async with asyncio.timeout(10):
        while ("watch",) not in transport.calls:  # noqa: ASYNC110 -- a list has no event
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.calls[-1] == ("cancel", "j")
