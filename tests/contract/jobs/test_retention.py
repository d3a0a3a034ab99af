"""Retention over a store and a directory."""

from pathlib import Path

import pytest

from disagfusion.jobs import retention
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
