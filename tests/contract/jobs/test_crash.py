"""A process that dies between any two steps of storing a result leaves a consistent state."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from disagfusion.errors import NotFoundError
from disagfusion.jobs.directory_results import DirectoryResultStore
from disagfusion.jobs.model import Completion, JobState, Stage, StageRecord
from disagfusion.jobs.results import ResultKey
from disagfusion.jobs.retention import clean_results, discard_result
from disagfusion.jobs.sql_store import SqlJobStore

PROGRAM = """
import asyncio, hashlib, sys
from pathlib import Path
from disagfusion.jobs.directory_results import DirectoryResultStore
from disagfusion.jobs.model import *
from disagfusion.jobs.results import ResultKey
from disagfusion.jobs.sql_store import SqlJobStore

CONTENT = b"picture" * 1000
OUTPUT = Output(0, "image/png", len(CONTENT), 1, 1, 1, hashlib.sha256(CONTENT).hexdigest())

async def chunks():
    for i in range(0, len(CONTENT), 1000):
        yield CONTENT[i : i + 1000]

async def main(root, url):
    store = SqlJobStore(url)
    async with store, DirectoryResultStore(root / "results") as results:
        await store.submit(NewJob("job-1", "t", "p", b"r", "f", 1.0))
        print("accepted", flush=True)
        states = (JobState.QUEUED, JobState.ENCODING, JobState.DENOISING, JobState.DECODING)
        for before, after in zip(states, states[1:]):
            change = Transition("job-1", before, 1, after, StageStatus.WAITING, 1, 2.0)
            await store.transition(change)
            print(after.name, flush=True)
        await results.write(ResultKey("job-1", 1, 0), OUTPUT, chunks())
        record = StageRecord(Stage.DECODER, 1, "w")
        await store.complete(Completion("job-1", 1, 3.0, (OUTPUT,), (record,)))
        print("SUCCEEDED", flush=True)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""

# Commits 1, 3 and 5 are the submission's, a transition's and the success's.
POINTS = [
    *(f"jobs.commit.{side}@{n}" for n in (1, 3, 5) for side in ("before", "after")),
    "results.fsync.before@1",
    "results.rename.before@1",
    "results.rename.after@1",
    "results.sync.after@1",
]


def run(root: Path, url: str, point: str | None) -> tuple[int, list[str]]:
    environment = {**os.environ}
    if point is not None:
        name, _, passes = point.partition("@")
        (root / name).write_text(passes)
        environment["DISAGFUSION_FAILPOINTS"] = str(root)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.split()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    database: str = request.getfixturevalue("postgres").database()
    return database


def test_it_succeeds_undisturbed(tmp_path: Path, url: str) -> None:
    told = ["accepted", "ENCODING", "DENOISING", "DECODING", "SUCCEEDED"]
    assert run(tmp_path, url, None) == (0, told)


@pytest.mark.parametrize("point", POINTS)
def test_killed(tmp_path: Path, url: str, point: str) -> None:
    code, told = run(tmp_path, url, point)
    assert code == -signal.SIGKILL
    assert (tmp_path / f"{point.partition('@')[0]}.reached").exists()
    asyncio.run(check(tmp_path, url, told))


async def check(root: Path, url: str, told: list[str]) -> None:
    """Look at what is there as a gateway does that starts again, and carry on."""
    store = SqlJobStore(url)
    async with store, DirectoryResultStore(root / "results") as results:
        try:
            job = await store.load("job-1")
        except NotFoundError:
            assert told == []
            return
        # What was told to anyone had been stored.
        if told[-1:] not in ([], ["accepted"]):
            assert job.state >= JobState[told[-1]]
        events = await store.events("job-1", tenant="t")
        assert [event.sequence for event in events] == list(range(1, job.sequence + 1))
        assert events[-1].state is job.state
        await clean_results(store, results, before=time.time() + 1)
        stored = {path.name for path in (root / "results").rglob("*") if path.is_file()}
        key = ResultKey("job-1", 1, 0)
        if job.state is JobState.SUCCEEDED:
            assert stored == {"job-1.1.0"}
            content = b"".join([chunk async for chunk in results.read(key)])
            assert content == b"picture" * 1000
            assert job.stages == (StageRecord(Stage.DECODER, 1, "w"),)
            assert not await discard_result(store, results, "job-1", 1)
            assert await results.clean([key], before=time.time() + 1) == 0
        else:
            assert (job.outputs, job.stages, stored) == ((), (), set())
            assert [found.job_id for found in await store.unfinished()] == ["job-1"]
        if job.state is JobState.DECODING:
            await store.complete(Completion("job-1", 1, 4.0, ()))
            assert (await store.load("job-1")).state is JobState.SUCCEEDED
