"""Retention over a store and a directory."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from disagfusion.jobs import retention, sql_retention
from disagfusion.jobs.directory_results import DirectoryResultStore
from disagfusion.jobs.sql_store import SqlJobStore
from disagfusion.jobs.store import RetentionPolicy

from .storekit import new, succeed


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_more_than_one_batch(
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    url = "sqlite://"
    if database == "postgresql":
        url = request.getfixturevalue("postgres").database()
    monkeypatch.setattr(retention, "_BATCH", 2)
    results = DirectoryResultStore(tmp_path / "results")
    await results.open()
    async with SqlJobStore(url) as store:
        for i in range(7):
            await store.submit(new(f"job-{i}"))
            await succeed(store, f"job-{i}", at=100.0 + i)
        policy = RetentionPolicy(3.5, 0, None, 20, None)
        report = await retention.apply(store, results, policy, 106.0)
        assert report == retention.RetentionReport(jobs=3, results=2, events=3)
        assert {key[0] for key in await store.result_keys()} == {"job-5", "job-6"}
        assert await retention.apply(store, results, policy, 106.0) == retention.RetentionReport(
            0, 0, 0
        )


async def test_no_round_looks_at_every_job_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with SqlJobStore(f"sqlite:///{path}"):
        pass
    # A store from before the indices.
    with closing(sqlite3.connect(path)) as connection, connection:
        for name in ("jobs_by_size", "jobs_with_results", "jobs_with_events"):
            connection.execute(f"DROP INDEX {name}")
    asked: list[str] = []

    def ask(connection: Connection) -> list[str]:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(asked.append)
        sql_retention.expired(connection, RetentionPolicy(), 0.0, 10)
        sql_retention.result_bytes(connection)
        driver.set_trace_callback(None)
        return [row[3] for one in asked for row in driver.execute(f"EXPLAIN QUERY PLAN {one}")]

    async with SqlJobStore(f"sqlite:///{path}") as store:
        plans = await store._thread.read(ask)
    assert len(plans) == len(asked) == 6
    narrow = ("COVERING INDEX", "INDEX jobs_by_", "INDEX jobs_with_")
    assert all(any(way in plan for way in narrow) for plan in plans), plans
    assert sum("jobs_with_" in plan for plan in plans) == 4
