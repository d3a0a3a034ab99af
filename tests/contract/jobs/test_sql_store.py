"""What holds for the SQL store only: full disks, foreign files, opening and closing."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from disagfusion.errors import (
    DisagfusionError,
    FailedPreconditionError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion.jobs import sql_thread
from disagfusion.jobs.model import (
    InputImage,
    JobState,
    Stage,
    StageRecord,
)
from disagfusion.jobs.sql_store import SqlJobStore

from .storekit import new, step, succeed


async def test_a_full_disk_refuses_new_jobs_and_loses_no_accepted_one(tmp_path: Path) -> None:
    free = 10_000
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    async with SqlJobStore(url, min_free_bytes=1000, free_bytes=lambda _: free) as store:
        first = await store.submit(new(client_request_id="r"))
        free = 1000
        again = await store.submit(new("job-3", client_request_id="r"))
        assert (again.created, again.job) == (False, first.job)
        with pytest.raises(ResourceExhaustedError) as caught:
            await store.submit(new("job-2"))
        assert caught.value.reason == "DISK_FULL"
        assert caught.value.retry_after is not None
        await succeed(store, "job-1")
        free = 10_000
        await store.submit(new("job-2"))


async def test_changes_wait_while_the_database_cannot_grow(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with SqlJobStore(f"sqlite:///{path}") as store:
        await store.submit(new())

        async def limit(pages: int) -> None:
            pragma = f"PRAGMA max_page_count={pages}"
            await store._thread.read(lambda connection: connection.exec_driver_sql(pragma).all())

        await limit(1)
        with pytest.raises(ResourceExhaustedError):
            await asyncio.gather(
                *(store.submit(new(f"more-{i}", generation=b"x" * 4096)) for i in range(100))
            )
        change = step("job-1", JobState.QUEUED, JobState.ENCODING, message="m" * 4000)
        records = tuple(StageRecord(Stage.DIT, i, "w", outcome="o" * 4000) for i in range(20))
        waiting = asyncio.create_task(store.transition(change._replace(records=records)))
        # Reading goes on, and writing is refused to those who would not wait.
        with pytest.raises(ResourceExhaustedError):
            await store.submit(new("refused", generation=b"x" * 9000))
        assert (await store.load("job-1")).state is JobState.QUEUED
        assert not waiting.done()
        await limit(1_000_000)
        event = await waiting
        assert event.state is JobState.ENCODING
        assert len((await store.load("job-1")).stages) == 20


async def test_a_transaction_that_lasts_takes_no_more_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_thread, "GROUP_SECONDS", 0.0)
    begun: list[object] = []
    async with SqlJobStore(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        for n in range(20):
            await store.submit(new(f"job-{n}"))
        store._thread.guard = begun.append
        changes = [step(f"job-{n}", JobState.QUEUED, JobState.ENCODING) for n in range(20)]
        changing = [asyncio.create_task(store.transition(change)) for change in changes]
        await asyncio.sleep(0)
    # What was asked for before the end was done, one at a time.
    assert {event.state for event in await asyncio.gather(*changing)} == {JobState.ENCODING}
    assert len(begun) == 20


async def test_all_is_there_after_opening_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'jobs.db'}"
    async with SqlJobStore(url) as store:
        await store.submit(new())
        await store.submit(new("job-2", images=(InputImage("image", b"x"),)))
        await succeed(store, "job-1")
        before = (await store.load("job-1"), await store.load("job-2"))
    async with SqlJobStore(url) as store:
        assert (await store.load("job-1"), await store.load("job-2")) == before
        assert await store.images("job-2") == (InputImage("image", b"x"),)
        assert [job.job_id for job in await store.unfinished()] == ["job-2"]
    with pytest.raises(UnavailableError):
        await store.load("job-1")


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with SqlJobStore(f"sqlite:///{path}"):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(FailedPreconditionError, match="newer"):
        await SqlJobStore(f"sqlite:///{path}").open()


async def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with SqlJobStore(f"sqlite:///{path}") as store:
        await store.submit(new())
    with closing(sqlite3.connect(path)) as connection, connection:
        for change in (
            "ALTER TABLE jobs DROP COLUMN owner",
            "ALTER TABLE jobs DROP COLUMN cancel_requested",
            "DROP TABLE gateways",
            "DROP TABLE pipelines",
            "UPDATE schema_version SET version = 1",
        ):
            connection.execute(change)
    for _ in range(2):
        async with SqlJobStore(f"sqlite:///{path}") as store:
            assert [job.job_id for job in await store.unfinished()] == ["job-1"]
    async with SqlJobStore(f"sqlite:///{path}") as store:
        await succeed(store, "job-1")
        assert await store.specification("digits") == ""
        await store.put_specification("digits", "{}")


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"certainly not a database" * 100)
    with pytest.raises(UnavailableError, match=r"jobs\.db"):
        await SqlJobStore(f"sqlite:///{path}").open()
    assert path.read_bytes() == b"certainly not a database" * 100


async def test_a_locked_database_is_unavailable_not_broken(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with SqlJobStore(f"sqlite:///{path}") as store:
        await store._thread.read(
            lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=10").all()
        )
        await store.submit(new())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(UnavailableError):
                await store.submit(new("job-2"))
            waiting = asyncio.create_task(
                store.transition(step("job-1", JobState.QUEUED, JobState.ENCODING))
            )
            keeping = asyncio.create_task(store.put_specification("digits", "{}"))
            assert (await store.load("job-1")).state is JobState.QUEUED
            other.execute("ROLLBACK")
        await keeping
        assert (await waiting).state is JobState.ENCODING


async def test_changes_that_wait_fail_when_the_store_closes(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = SqlJobStore(f"sqlite:///{path}")
    await store.open()
    await store._thread.read(
        lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=10").all()
    )
    await store.submit(new())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(
            store.transition(step("job-1", JobState.QUEUED, JobState.ENCODING))
        )
        await store.load("job-1")
        await store.aclose()
        with pytest.raises(DisagfusionError):
            await waiting
        other.execute("ROLLBACK")


async def test_synchronous_is_full_unless_told_otherwise(tmp_path: Path) -> None:
    for mode, number in (("FULL", 2), ("NORMAL", 1)):
        store = SqlJobStore(f"sqlite:///{tmp_path / mode}.db", synchronous=mode)
        async with store:
            for pragma, value in (("synchronous", number), ("foreign_keys", 1)):
                found = await store._thread.read(
                    lambda connection, pragma=pragma: connection.exec_driver_sql(
                        f"PRAGMA {pragma}"
                    ).scalar()
                )
                assert found == value
    with pytest.raises(ValueError, match="synchronous"):
        SqlJobStore("sqlite://", synchronous="perhaps")
