"""Several gateways on one database and one set of workers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gatewaykit.emulated import Fleet, check_results, ends, submit
from gatewaykit.gateways import ENDED, Api
from postgres_server import PostgresServer

from disagfusion.errors import ResourceExhaustedError, UnavailableError
from disagfusion.v1 import generation_pb2 as pb

pytestmark = pytest.mark.timeout(240)

JOBS = 80
IN_FLIGHT = 50
# Steps that take most of a minute.
LONG = 1000


@pytest.fixture
async def fleet(tmp_path: Path, fork_server: str, postgres: PostgresServer) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path, fork_server, postgres.database())
    try:
        yield fleet
    finally:
        await fleet.stop()


async def unfinished(api: Api) -> set[str]:
    """The ids of the jobs that have not ended."""
    return {job.job_id for job in (await api.list(page_size=1000)).jobs if job.state not in ENDED}


async def underway(api: Api) -> int:
    """How many jobs have not ended, once the first has."""
    begun = await unfinished(api)
    while (left := await unfinished(api)) == begun:
        pass
    return len(left)


async def submit_all(*apis: Api, count: int = JOBS) -> list[pb.Job]:
    """Submit jobs, to each gateway in turn."""
    return list(await asyncio.gather(*(submit(apis[n % len(apis)], n) for n in range(count))))


async def test_one_is_killed_while_jobs_of_both_are_under_way(fleet: Fleet) -> None:
    await fleet.start()
    (first, a), (_, b) = [await fleet.gateway(name) for name in ("a", "b")]
    jobs = await submit_all(a, b)
    assert await underway(b) >= IN_FLIGHT
    await first.kill()
    await check_results(b, jobs)


async def test_one_is_stopped_and_goes_on_after_the_others_took_over(fleet: Fleet) -> None:
    await fleet.start()
    (first, a), (second, b) = [await fleet.gateway(name) for name in ("a", "b")]
    jobs = await submit_all(a, b)
    assert await underway(b) >= IN_FLIGHT
    first.send(signal.SIGSTOP)
    its_own = await unfinished(b) & {job.job_id for job in jobs[::2]}
    # It wakes up as soon as one of its jobs has come to its end elsewhere.
    while its_own <= await unfinished(b):
        pass
    first.send(signal.SIGCONT)
    assert await first.ended() == 1
    await check_results(b, jobs)
    # It may come back, as another.
    assert (await first.start()).startswith("unix:")
    assert (await ends(b, [await submit(a, JOBS)]))[0].state == pb.JOB_STATE_SUCCEEDED
    assert await second.signal(signal.SIGTERM) == 0


async def test_one_that_ends_leaves_its_jobs_at_once(fleet: Fleet) -> None:
    await fleet.start()
    # So long that nobody could take a silent gateway for dead within the test.
    first, a = await fleet.gateway("a", lease_seconds=1000 / 4)
    _, b = await fleet.gateway("b")
    jobs = await submit_all(a, count=40)
    await underway(b)
    assert await first.signal(signal.SIGTERM) == 0
    await check_results(b, jobs)


async def test_all_are_killed_and_another_starts(fleet: Fleet) -> None:
    await fleet.start()
    gateways = [await fleet.gateway(name) for name in ("a", "b")]
    jobs = await submit_all(*(api for _, api in gateways), count=40)
    await underway(gateways[0][1])
    for process, _ in gateways:
        await process.kill()
    _, c = await fleet.gateway("c")
    await check_results(c, jobs)


async def test_every_gateway_answers_for_every_job(fleet: Fleet) -> None:
    await fleet.start(dits=1)
    (_, a), (_, b) = [await fleet.gateway(name) for name in ("a", "b")]
    job = await submit(a, 1)
    assert (await submit(b, 1)).job_id == job.job_id, "the same request is the same job"
    events = [event async for event in b.watch(job.job_id)]
    durable = [event.sequence for event in events if not event.HasField("progress")]
    assert durable == list(range(1, len(durable) + 1))
    assert events[-1].state == pb.JOB_STATE_SUCCEEDED
    assert await a.get(job.job_id) == await b.get(job.job_id) == events[-1].job
    assert await a.fetch(job.job_id) == await b.fetch(job.job_id)
    long = await submit(a, 2, steps=LONG)
    await a.until(long.job_id, pb.JOB_STATE_DENOISING, pb.STAGE_STATUS_RUNNING)
    assert (await b.cancel(long.job_id)).state == pb.JOB_STATE_CANCELLED
    assert (await a.get(long.job_id)).state == pb.JOB_STATE_CANCELLED
    assert {one.job_id for one in (await b.list()).jobs} == {job.job_id, long.job_id}
    assert (await ends(a, [await submit(b, 3)]))[0].state == pb.JOB_STATE_SUCCEEDED


async def test_a_cancellation_outlives_the_gateway_that_should_have_seen_to_it(
    fleet: Fleet,
) -> None:
    await fleet.start(dits=1)
    (first, a), (_, b) = [await fleet.gateway(name) for name in ("a", "b")]
    long = await submit(a, 1, steps=LONG)
    await a.until(long.job_id, pb.JOB_STATE_DENOISING, pb.STAGE_STATUS_RUNNING)
    first.send(signal.SIGSTOP)
    assert (await b.cancel(long.job_id)).state == pb.JOB_STATE_CANCELLED
    # The worker has stopped it, too.
    assert (await ends(b, [await submit(b, 2)]))[0].state == pb.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize("handover", ["async", "sync"])
async def test_more_gateways_than_slots(fleet: Fleet, handover: str) -> None:
    await fleet.start(dits=1, slots=1, handover=handover)
    gateways = [await fleet.gateway(f"g{n}") for n in range(3)]
    for number, (_, api) in enumerate(gateways):
        # Alone, after others had the slots and have no use for them.
        (job,) = await ends(api, [await submit(api, 1000 + number)])
        assert job.state == pb.JOB_STATE_SUCCEEDED
    jobs = await submit_all(*(api for _, api in gateways), count=30)
    ended = await ends(gateways[0][1], jobs)
    assert {job.state for job in ended} == {pb.JOB_STATE_SUCCEEDED}
    assert {job.attempt for job in ended} == {1}, "nothing was refused or done twice"


async def test_an_idle_gateway_leaves_the_workers_slots_to_the_others(fleet: Fleet) -> None:
    await fleet.start(dits=1)
    (_, a), (_, _) = [await fleet.gateway(name) for name in ("a", "b")]
    jobs = await ends(a, await submit_all(a, count=20))
    records = [record for job in jobs for record in job.stages if record.stage == pb.STAGE_DIT]
    # With one slot each input would arrive after the job before has ended, and wait for nothing.
    assert sum(record.queue_seconds > 0.01 for record in records) >= len(records) // 2


async def test_the_database_goes_away_and_comes_back(
    fleet: Fleet, postgres: PostgresServer
) -> None:
    await fleet.start()
    (_, a), (_, b) = [await fleet.gateway(name) for name in ("a", "b")]
    jobs = await submit_all(a, b)
    await underway(b)
    postgres.stop()
    try:
        with pytest.raises(UnavailableError):
            await a.submit("p")
        # Longer than a lease: nobody is dead because nobody could beat.
        await asyncio.sleep(1.5)
    finally:
        postgres.start()
    await check_results(b, await until_answered(a, jobs))
    assert await a.get(jobs[0].job_id) == await b.get(jobs[0].job_id)


async def until_answered(api: Api, jobs: list[pb.Job]) -> list[pb.Job]:
    while True:
        try:
            return await ends(api, jobs)
        except UnavailableError:
            await asyncio.sleep(0.1)


async def test_a_tenants_limit_is_for_all_gateways(fleet: Fleet) -> None:
    await fleet.start(dits=1)
    (_, a), (_, b) = [await fleet.gateway(name, tenant_limit=2) for name in ("a", "b")]
    jobs = [await submit(a, n, steps=LONG) for n in range(2)]
    # Seen with the next beat.
    while not await refused(b):
        pass
    for job in jobs:
        await b.cancel(job.job_id)
    assert (await ends(b, [await submit(b, 100)]))[0].state == pb.JOB_STATE_SUCCEEDED


async def refused(api: Api) -> bool:
    """Whether a tenant with two jobs may have no third."""
    try:
        job = await api.submit("p", num_inference_steps=LONG)
    except ResourceExhaustedError as error:
        return "2 unfinished jobs" in error.message
    await api.cancel(job.job_id)
    return False
