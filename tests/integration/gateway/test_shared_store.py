"""Gateways on one database: answers that are lost, leases that are, and who cleans up."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Any

import pytest
from gatewaykit import eventually
from google.protobuf.duration_pb2 import Duration
from PIL import Image
from postgres_server import PostgresServer

from disagfusion.errors import UnavailableError
from disagfusion.jobs.directory_results import DirectoryResultStore
from disagfusion.jobs.model import InputImage, NewJob
from disagfusion.jobs.sql_peers import SqlPeers
from disagfusion.jobs.store import Submission
from disagfusion.v1 import generation_pb2 as pb


async def test_a_client_that_goes_while_its_job_is_stored(bench: Any) -> None:
    _, gateway, api = await bench.running()
    store = gateway.gateway._store
    submit = store.submit
    reached, gone = asyncio.Event(), asyncio.Event()

    async def slow(job: NewJob) -> Submission:
        reached.set()
        await gone.wait()
        stored: Submission = await submit(job)
        return stored

    store.submit = slow
    leaving = asyncio.create_task(api.submit(client_request_id="once"))
    await reached.wait()
    leaving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaving
    gone.set()
    store.submit = submit
    job = await api.submit(client_request_id="once")
    assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED
    assert len((await api.list()).jobs) == 1


async def test_a_submission_whose_commit_was_not_answered(
    bench: Any, postgres: PostgresServer
) -> None:
    database = postgres.database()
    _, gateway, api = await bench.running(database=database, lease_seconds=0.1)
    store = gateway.gateway._store
    submit = store.submit

    async def unanswered(job: NewJob) -> Submission:
        await submit(job)
        raise UnavailableError("the connection broke")

    store.submit = unanswered
    with pytest.raises(UnavailableError):
        await api.submit(client_request_id="once")
    store.submit = submit
    job = await api.submit(client_request_id="once")
    assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED
    assert len((await api.list()).jobs) == 1


async def test_images_are_read_once_the_database_is_back(bench: Any) -> None:
    _, gateway, api = await bench.running()
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    store = gateway.gateway._store
    images, tries = store.images, []

    async def away(job_id: str) -> tuple[InputImage, ...]:
        tries.append(job_id)
        if len(tries) < 3:
            raise UnavailableError("the connection broke")
        found: tuple[InputImage, ...] = await images(job_id)
        return found

    store.images = away
    job = await api.submit(images=[pb.InputImage(content=picture.getvalue())])
    assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED
    assert len(tries) >= 3


async def test_a_lease_that_is_lost_ends_the_gateway(bench: Any, postgres: PostgresServer) -> None:
    database = postgres.database()
    stages = await bench.stages()
    gateway = await bench.process(workers=stages.workers, database=database, lease_seconds=0.1)
    api = bench.api()
    gate = stages["dit-0"].hold("step")
    job = await api.submit()
    await gate.reached.wait()
    postgres.execute("DELETE FROM gateways", database.partition("@/")[2].partition("?")[0])
    assert await gateway.ended() == 1
    await gateway.start()
    stages.release_all()
    assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED
    await eventually(lambda: not any(stage.assignments for stage in stages.by_name.values()))


async def test_jobs_are_timed_by_the_databases_clock(
    bench: Any, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def early(_: SqlPeers) -> float:
        return 1e9

    monkeypatch.setattr(SqlPeers, "now", early)
    _, _, api = await bench.running(database=postgres.database())
    job = await api.submit(timeout=Duration(seconds=3600))
    end = await api.end_of(job.job_id)
    assert end.state == pb.JOB_STATE_SUCCEEDED
    times = [event.time.seconds async for event in api.watch(job.job_id)]
    for seconds in (job.submitted_at.seconds, end.ended_at.seconds, *times):
        assert 1e9 <= seconds < 1e9 + 600


async def test_the_eldest_removes_what_is_old(bench: Any, postgres: PostgresServer) -> None:
    stages = await bench.stages()
    shared = {
        "workers": stages.workers,
        "database": postgres.database(),
        "lease_seconds": 2.0,
        "retention_interval_seconds": 0.05,
    }
    first = await bench.process(**shared, retention_job_seconds="")
    listen = f"unix:{bench.directory}/second.sock"
    second = await bench.gateway(**shared, listen=listen, retention_job_seconds=0.001)
    api = bench.api(address=listen)
    job = await bench.api().submit()
    await api.end_of(job.job_id)
    assert not second.gateway._peering.eldest
    assert await api.get(job.job_id)
    await first.kill()
    async with asyncio.timeout(30):
        while (await api.list()).jobs:
            pass
    assert second.gateway._peering.eldest


async def test_a_gateway_lives_while_it_cleans_up(
    bench: Any, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = await bench.stages()
    database = postgres.database()
    name = database.partition("@/")[2].partition("?")[0]
    shared = {"workers": stages.workers, "database": database, "lease_seconds": 0.1}
    done = asyncio.Event()

    async def slow(_: DirectoryResultStore, keep: object, **options: object) -> int:
        await done.wait()
        return 0

    await bench.gateway(**shared)
    monkeypatch.setattr(DirectoryResultStore, "clean", slow)
    await bench.gateway(**shared, listen=f"unix:{bench.directory}/second.sock")
    # For longer than the other one waits for a sign of life.
    youngest = "SELECT beats FROM gateways ORDER BY id DESC LIMIT 1"
    await eventually(lambda: postgres.execute(youngest, name)[0][0] >= 20)
    done.set()
