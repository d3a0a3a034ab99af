"""What every job store must do."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from disagfusion.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from disagfusion.jobs.model import (
    Completion,
    InputImage,
    JobError,
    JobState,
    Stage,
    StageRecord,
    StageStatus,
    StaleTransitionError,
)
from disagfusion.jobs.sql_store import SqlJobStore
from disagfusion.jobs.store import Expired, JobStore, RetentionPolicy

from .storekit import IMAGE, decode, new, step, succeed


@pytest.fixture(params=["file", "memory", "postgresql", "shared"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobStore]:
    owner = ""
    match request.param:
        case "file":
            url = f"sqlite:///{tmp_path / 'jobs.db'}"
        case "memory":
            url = "sqlite://"
        case kind:
            url = request.getfixturevalue("postgres").database()
            owner = "gateway-1" if kind == "shared" else ""
    async with SqlJobStore(url, owner=owner, synchronous="NORMAL", max_input_bytes=1000) as opened:
        yield opened


async def test_a_job_is_returned_as_it_was_submitted(store: JobStore) -> None:
    images = (InputImage("image", b"a"), InputImage("mask_image", b"b"))
    submitted = new(images=images, client_request_id="r", deadline=200.0, traceparent="t")
    submission = await store.submit(submitted)
    assert submission.created
    job = await store.get("job-1", tenant="anna")
    assert job == submission.job == await store.load("job-1")
    assert (job.state, job.stage_status, job.attempt) == (JobState.QUEUED, StageStatus.WAITING, 1)
    assert (job.generation, job.client_request_id, job.deadline) == (b"request", "r", 200.0)
    assert (job.started_at, job.ended_at, job.error, job.outputs) == (None, None, None, ())
    assert await store.images("job-1") == images


async def test_what_a_pipeline_accepts_is_kept(store: JobStore) -> None:
    assert await store.specification("digits") == ""
    for text in ("first", "second"):
        await store.put_specification("digits", text)
    await store.put_specification("other", "third")
    assert await store.specification("digits") == "second"


async def test_success_with_records_outputs_and_numbered_events(store: JobStore) -> None:
    await store.submit(new(images=(InputImage("image", b"x"),)))
    encoded = StageRecord(Stage.ENCODER, 1, "e", compute_seconds=0.5)
    await store.transition(step("job-1", JobState.QUEUED, JobState.ENCODING, version="v1"))
    await store.transition(
        step("job-1", JobState.ENCODING, JobState.DENOISING, version="v1", records=(encoded,))
    )
    sent = replace(encoded, transport="ucx/shm", bytes_out=7)
    denoised = StageRecord(Stage.DIT, 1, "d", compute_seconds=2.0, steps=4)
    await store.transition(
        step("job-1", JobState.DENOISING, JobState.DECODING, records=(denoised, sent))
    )
    outputs = (IMAGE, replace(IMAGE, index=1))
    event = await store.complete(Completion("job-1", 1, 105.0, outputs))
    job = await store.load("job-1")
    assert job.state is JobState.SUCCEEDED
    assert (job.started_at, job.ended_at) == (101.0, 105.0)
    assert job.outputs == outputs
    assert job.stages == (sent, denoised)
    assert job.accelerator_seconds == 2.5
    assert await store.images("job-1") == ()
    events = await store.events("job-1", tenant="anna")
    assert [e.sequence for e in events] == [1, 2, 3, 4, 5]
    assert [e.state for e in events] == list(JobState)[:5]
    assert events[-1] == event
    assert await store.events("job-1", tenant="anna", after_sequence=3) == events[3:]
    assert await store.events("job-1", tenant="anna", after_sequence=2, limit=1) == events[2:3]


async def test_why_a_job_failed_is_kept(store: JobStore) -> None:
    await store.submit(new())
    error = JobError("OUT_OF_MEMORY", "too large " * 1000)
    change = step("job-1", JobState.QUEUED, JobState.FAILED, error=error, message="x" * 9999)
    event = await store.transition(change)
    job = await store.load("job-1")
    assert job.error is not None
    assert job.error.reason == "OUT_OF_MEMORY"
    assert error.message.startswith(job.error.message)
    assert len(event.message) < 9999
    assert job.started_at is None


@pytest.mark.parametrize(
    ("state", "attempt"),
    [(JobState.ENCODING, 1), (JobState.QUEUED, 2), (JobState.DECODING, 1)],
)
async def test_a_change_from_elsewhere_is_refused(
    store: JobStore, state: JobState, attempt: int
) -> None:
    await store.submit(new())
    before = await store.load("job-1")
    change = step("job-1", state, JobState.DENOISING, attempts=(attempt, attempt + 1))
    with pytest.raises(StaleTransitionError):
        await store.transition(change)
    assert await store.load("job-1") == before
    assert len(await store.events("job-1", tenant="anna")) == 1


async def test_an_ended_job_stays_as_it_is(store: JobStore) -> None:
    await store.submit(new())
    await succeed(store, "job-1")
    before = await store.load("job-1")
    with pytest.raises(StaleTransitionError):
        await store.complete(Completion("job-1", 1, 106.0, ()))
    with pytest.raises(StaleTransitionError):
        await store.transition(step("job-1", JobState.DECODING, JobState.CANCELLED))
    assert await store.load("job-1") == before


async def test_only_the_current_attempt_succeeds(store: JobStore) -> None:
    await store.submit(new())
    await decode(store, "job-1")
    again = step("job-1", JobState.DECODING, JobState.DECODING, attempts=(1, 2))
    await store.transition(again)
    with pytest.raises(StaleTransitionError):
        await store.complete(Completion("job-1", 1, 105.0, (IMAGE,)))
    assert (await store.load("job-1")).outputs == ()
    await store.complete(Completion("job-1", 2, 105.0, (IMAGE,)))
    assert await store.result_keys() == {("job-1", 2, 0)}


async def test_an_attempt_never_goes_down(store: JobStore) -> None:
    await store.submit(new())
    with pytest.raises(ValueError, match="never goes down"):
        await store.transition(step("job-1", JobState.QUEUED, JobState.ENCODING, attempts=(1, 0)))


async def test_a_worker_that_counts_in_nan_disturbs_nobody(store: JobStore) -> None:
    await store.submit(new())
    record = StageRecord(Stage.ENCODER, 1, "w", compute_seconds=float("nan"))
    await store.transition(step("job-1", JobState.QUEUED, JobState.ENCODING, records=(record,)))
    assert (await store.load("job-1")).accelerator_seconds == 0.0


async def test_a_database_that_cannot_be_reached() -> None:
    with pytest.raises(UnavailableError):
        await SqlJobStore("sqlite:////proc/nowhere/jobs.db").open()
    with pytest.raises(UnavailableError):
        await SqlJobStore("postgresql+psycopg://nobody@127.0.0.1:1/x").open()


def test_what_is_no_url_is_an_invalid_argument() -> None:
    with pytest.raises(InvalidArgumentError, match="database"):
        SqlJobStore("certainly no url")


async def test_unknown_jobs(store: JobStore) -> None:
    change = step("nowhere", JobState.QUEUED, JobState.ENCODING)
    for call in (
        store.load("nowhere"),
        store.get("nowhere", tenant="anna"),
        store.events("nowhere", tenant="anna"),
        store.transition(change),
        store.complete(Completion("nowhere", 1, 1.0, ())),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert await store.images("nowhere") == ()


async def test_client_request_ids_are_each_tenants_own(store: JobStore) -> None:
    first = await store.submit(new(client_request_id="r"))
    again = await store.submit(new("job-2", client_request_id="r"))
    assert (again.created, again.job) == (False, first.job)
    with pytest.raises(AlreadyExistsError) as caught:
        await store.submit(new("job-3", client_request_id="r", fingerprint="0" * 64))
    assert caught.value.metadata == {"job_id": "job-1"}
    other = await store.submit(new("job-4", client_request_id="r", tenant="ben"))
    assert other.created
    # Without an id nothing is compared.
    assert (await store.submit(new("job-5"))).created
    assert (await store.submit(new("job-6"))).created
    with pytest.raises(NotFoundError):
        await store.load("job-2")


async def test_a_job_id_is_used_once(store: JobStore) -> None:
    await store.submit(new())
    with pytest.raises(AlreadyExistsError):
        await store.submit(new())
    with pytest.raises(AlreadyExistsError):
        await store.submit(new(tenant="ben", client_request_id="r"))


@pytest.mark.parametrize("job_id", ["", "a/b", "..", "x" * 65, "ü", "a\n"])
async def test_malformed_job_ids(store: JobStore, job_id: str) -> None:
    with pytest.raises(InvalidArgumentError):
        await store.submit(new(job_id))


async def test_too_large_inputs(store: JobStore) -> None:
    with pytest.raises(InvalidArgumentError):
        await store.submit(new(images=(InputImage("image", b"x" * 1000),)))


async def test_tenants_see_their_own_jobs_only(store: JobStore) -> None:
    await store.submit(new())
    with pytest.raises(NotFoundError):
        await store.get("job-1", tenant="ben")
    with pytest.raises(NotFoundError):
        await store.events("job-1", tenant="ben")
    assert (await store.list_jobs(tenant="ben")).jobs == ()


async def test_listing_goes_back_page_by_page(store: JobStore) -> None:
    for i in range(7):
        await store.submit(new(f"job-{i}"))
    await store.submit(new("other", tenant="ben"))
    await succeed(store, "job-3")
    seen: list[str] = []
    token = ""
    while True:
        page = await store.list_jobs(tenant="anna", page_size=3, page_token=token)
        seen += [job.job_id for job in page.jobs]
        # What is submitted meanwhile does not shift the pages.
        await store.submit(new(f"late-{len(seen)}"))
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"job-{i}" for i in reversed(range(7))]
    ended = await store.list_jobs(tenant="anna", states=[JobState.SUCCEEDED])
    assert [job.job_id for job in ended.jobs] == ["job-3"]
    assert ended.jobs[0].outputs == (IMAGE,)


async def test_page_tokens_and_sizes_are_checked(store: JobStore) -> None:
    for i in range(3):
        await store.submit(new(f"job-{i}"))
    token = (await store.list_jobs(tenant="anna", page_size=1)).next_page_token
    for wrong in ("x", "%%%", token[:-4], "A" * len(token)):
        with pytest.raises(InvalidArgumentError):
            await store.list_jobs(tenant="anna", page_token=wrong)
    with pytest.raises(InvalidArgumentError):
        await store.list_jobs(tenant="ben", page_token=token)
    with pytest.raises(InvalidArgumentError):
        await store.list_jobs(tenant="anna", page_token=token, states=[JobState.QUEUED])
    for size in (0, -1, 1001):
        with pytest.raises(InvalidArgumentError):
            await store.list_jobs(tenant="anna", page_size=size)


async def test_unfinished_jobs_come_in_the_order_of_submission(store: JobStore) -> None:
    for i in (5, 1, 3):
        await store.submit(new(f"job-{i}"))
    await succeed(store, "job-1")
    assert [job.job_id for job in await store.unfinished()] == ["job-5", "job-3"]


async def test_concurrent_changes_are_applied_in_order_and_refusals_alone(store: JobStore) -> None:
    await asyncio.gather(*(store.submit(new(f"job-{i}")) for i in range(50)))
    changes = [
        store.transition(step(f"job-{i}", state, after))
        for i in range(50)
        for state, after in (
            (JobState.QUEUED, JobState.ENCODING),
            (JobState.DECODING, JobState.FAILED),
            (JobState.ENCODING, JobState.DENOISING),
        )
    ]
    results = await asyncio.gather(*changes, return_exceptions=True)
    refused = [isinstance(result, StaleTransitionError) for result in results]
    assert refused == [False, True, False] * 50
    states = {job.state for job in await store.unfinished()}
    assert states == {JobState.DENOISING}


async def test_retention_touches_only_what_has_ended(store: JobStore) -> None:
    for i in range(3):
        await store.submit(new(f"job-{i}"))
    await succeed(store, "job-1", at=106.0)
    await succeed(store, "job-0", at=107.0)
    bounds = {"job_seconds": None, "job_bytes": None}
    policy = RetentionPolicy(**bounds, event_seconds=0, result_seconds=0, result_bytes=0)
    assert await store.expired(policy, 108.0, 10) == Expired((), *[("job-1", "job-0")] * 2)
    assert await store.result_bytes() == 20
    everything = [f"job-{i}" for i in range(3)]
    await store.delete_events(everything)
    assert [e.sequence for e in await store.events("job-0", tenant="anna")] == [5]
    assert await store.result_keys(["job-0", "job-2"]) == {("job-0", 1, 0)}
    await store.forget_results(everything)
    assert await store.result_keys() == await store.result_keys(["job-0"]) == frozenset()
    job = await store.load("job-0")
    assert [output.stored for output in job.outputs] == [False]
    assert await store.expired(policy, 108.0, 10) == Expired()
    assert await store.result_bytes() == 0
    await store.delete_jobs(everything)
    assert [job.job_id for job in await store.unfinished()] == ["job-2"]
    assert len(await store.events("job-2", tenant="anna")) == 1
    with pytest.raises(NotFoundError):
        await store.load("job-0")


async def test_a_caller_that_goes_away_disturbs_nobody(store: JobStore) -> None:
    tasks = [asyncio.create_task(store.submit(new(f"job-{i}"))) for i in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    found = {job.job_id for job in await store.unfinished()}
    assert {f"job-{i}" for i in range(1, 20, 2)} <= found
