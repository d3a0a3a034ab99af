"""What every result store must do, and what the one in a directory does on disk."""

import asyncio
import errno
import hashlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from disagfusion.errors import (
    DataLossError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion.jobs.directory_results import DirectoryResultStore
from disagfusion.jobs.model import Output
from disagfusion.jobs.results import ResultKey, ResultStorageError, ResultStore

CONTENT = bytes(range(256)) * 5000
KEY = ResultKey("job-1", 1, 0)


@pytest.fixture
async def results(tmp_path: Path) -> AsyncIterator[ResultStore]:
    async with DirectoryResultStore(tmp_path / "results") as opened:
        yield opened


def announced(content: bytes) -> Output:
    return Output(0, "image/png", len(content), 1, 1, 1, hashlib.sha256(content).hexdigest())


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def pieces(content: bytes, size: int = 70_001) -> list[bytes]:
    return [content[i : i + size] for i in range(0, len(content), size)]


async def put(results: ResultStore, key: ResultKey, content: bytes = CONTENT) -> None:
    await results.write(key, announced(content), stream(pieces(content)))


async def get(results: ResultStore, key: ResultKey, **span: int) -> bytes:
    return b"".join([chunk async for chunk in results.read(key, **span)])


def files(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", [CONTENT, b"", b"x"])
async def test_what_was_written_is_read(results: ResultStore, content: bytes) -> None:
    await put(results, KEY, content)
    assert await get(results, KEY) == content


async def test_ranges(results: ResultStore) -> None:
    await put(results, KEY)
    size = len(CONTENT)
    for offset, length in ((0, 10), (300, 1), (size - 5, 100), (size, 10), (77, 0)):
        expected = CONTENT[offset : offset + length]
        assert await get(results, KEY, offset=offset, length=length) == expected
    assert await get(results, KEY, offset=1_100_000) == CONTENT[1_100_000:]
    for offset, length in ((-1, 1), (size + 1, 1), (0, -1)):
        with pytest.raises(InvalidArgumentError):
            await get(results, KEY, offset=offset, length=length)


async def test_keys_are_apart(results: ResultStore) -> None:
    keys = [ResultKey(job, a, i) for job in ("j", "j-1") for a in (1, 11) for i in (0, 1)]
    for number, key in enumerate(keys):
        await put(results, key, bytes([number]))
    for number, key in enumerate(keys):
        assert await get(results, key) == bytes([number])
    await results.discard("j", 1)
    for key in keys[:2]:
        with pytest.raises(NotFoundError):
            await get(results, key)
    assert await get(results, keys[2]) == bytes([2])
    await results.delete([*keys, *keys])
    for key in keys:
        with pytest.raises(NotFoundError):
            await get(results, key)
    await results.discard("never-there", 7)


@pytest.mark.parametrize(
    "content", [CONTENT[:-1], CONTENT + b"x", CONTENT[:-1] + b"x", b"", CONTENT * 2]
)
async def test_other_bytes_than_announced_are_refused(
    results: ResultStore, tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(DataLossError):
        await results.write(KEY, announced(CONTENT), stream(pieces(content)))
    assert files(tmp_path) == set()


async def test_a_repeated_write_replaces(results: ResultStore, tmp_path: Path) -> None:
    await put(results, KEY, b"one")
    await put(results, KEY, b"two")
    assert await get(results, KEY) == b"two"
    assert files(tmp_path) == {"job-1.1.0"}


async def test_a_failed_repetition_leaves_what_was_there(results: ResultStore) -> None:
    await put(results, KEY)
    with pytest.raises(DataLossError):
        await results.write(KEY, announced(CONTENT), stream([b"x"]))
    assert await get(results, KEY) == CONTENT


async def test_a_source_that_breaks_or_is_cancelled_leaves_nothing(
    results: ResultStore, tmp_path: Path
) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield CONTENT[:1000]
        raise ConnectionError("gone")

    with pytest.raises((ConnectionError, UnavailableError)):
        await results.write(KEY, announced(CONTENT), breaks())
    reached = asyncio.Event()

    async def hangs() -> AsyncIterator[bytes]:
        yield CONTENT[:1000]
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(results.write(KEY, announced(CONTENT), hangs()))
    await reached.wait()
    assert len(files(tmp_path)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(tmp_path) == set()


async def test_cancelling_at_any_moment_leaves_all_or_nothing(
    results: ResultStore, tmp_path: Path
) -> None:
    for turns in range(60):
        task = asyncio.create_task(put(results, KEY))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert files(tmp_path) <= {"job-1.1.0"}
    await put(results, KEY)
    assert await get(results, KEY) == CONTENT


async def test_many_at_once(results: ResultStore) -> None:
    keys = [ResultKey(f"job-{i}", 1, 0) for i in range(40)]
    await asyncio.gather(*(put(results, key, key.job_id.encode() * 1000) for key in keys))
    found = await asyncio.gather(*(get(results, key) for key in keys))
    assert found == [key.job_id.encode() * 1000 for key in keys]


@pytest.mark.parametrize("job_id", ["../x", "a/b", "", ".", "x" * 65, "a\0"])
async def test_a_malformed_job_id_reaches_no_path(results: ResultStore, job_id: str) -> None:
    key = ResultKey(job_id, 1, 0)
    with pytest.raises(InvalidArgumentError):
        await put(results, key)
    with pytest.raises(InvalidArgumentError):
        await get(results, key)


async def test_cleaning_removes_orphans_only(results: ResultStore, tmp_path: Path) -> None:
    root = tmp_path / "results"
    kept, orphan = ResultKey("kept", 1, 0), ResultKey("orphan", 1, 0)
    await put(results, kept, b"a")
    await put(results, orphan, b"b")
    (root / "tmp" / "job-9.1.0.0123").write_bytes(b"half")
    (root / "00" / "notes.txt").write_bytes(b"somebody's")
    assert await results.clean([kept], before=time.time() - 3600) == 0
    assert await results.clean([kept], before=time.time() + 3600) == 2
    assert files(root) == {"kept.1.0", "notes.txt"}


async def test_the_floor_is_kept_free(tmp_path: Path) -> None:
    free = 1000 + len(CONTENT) - 1
    results = DirectoryResultStore(tmp_path, min_free_bytes=1000, free_bytes=lambda _: free)
    async with results:
        assert await results.free_bytes() == len(CONTENT) - 1
        with pytest.raises(ResourceExhaustedError) as caught:
            await put(results, KEY)
        assert caught.value.reason == "DISK_FULL"
        free += 1
        await put(results, KEY)


def away(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ESTALE, "Stale file handle")


@pytest.mark.parametrize("call", ["open", "replace", "fsync", "stat", "unlink", "listdir"])
async def test_a_volume_that_is_away_is_said_to_be_so(
    results: ResultStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    lost, kept = ResultKey("job-2", 1, 0), ResultKey("job-3", 1, 0)
    for key in (KEY, lost, kept):
        await put(results, key)
    places = {
        "open": ("disagfusion.jobs.directory_results.io.FileIO", lambda: put(results, KEY)),
        "replace": ("os.replace", lambda: put(results, KEY)),
        "fsync": ("os.fsync", lambda: put(results, KEY)),
        "stat": ("os.statvfs", results.free_bytes),
        "unlink": ("os.unlink", lambda: results.delete([lost])),
        "listdir": ("os.listdir", lambda: results.discard("job-2", 1)),
    }
    name, work = places[call]
    with monkeypatch.context() as patched:
        patched.setattr(name, away)
        with pytest.raises(ResultStorageError, match="Stale file handle"):
            await work()
        if call == "open":
            with pytest.raises(ResultStorageError, match="Stale file handle"):
                await get(results, KEY)
    await work()
    assert await get(results, kept) == CONTENT


async def test_a_result_that_is_stored_counts_although_nothing_can_be_tidied(
    results: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "unlink", away)
    await put(results, KEY)
    assert await get(results, KEY) == CONTENT
    with pytest.raises(DataLossError):
        await results.write(ResultKey("job-2", 1, 0), announced(CONTENT), stream([b"x"]))


async def test_one_file_that_cannot_be_removed_keeps_no_other(
    results: ResultStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unlink = os.unlink
    keys = [ResultKey(f"job-{number}", 1, 0) for number in range(3)]
    for key in keys:
        await put(results, key)

    def remove(path: str) -> None:
        away() if "job-0" in path else unlink(path)

    monkeypatch.setattr(os, "unlink", remove)
    with pytest.raises(ResultStorageError):
        await results.delete(keys)
    assert files(tmp_path) == {"job-0.1.0"}


async def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError):
        await DirectoryResultStore(tmp_path / "file").open()


LIMITED = """
import asyncio, resource, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_results as t
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
async def main():
    async with t.DirectoryResultStore(Path({root!r})) as results:
        try:
            await t.put(results, t.KEY)
        except t.ResourceExhaustedError as error:
            print(error.reason, sorted(t.files(Path({root!r}))))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        await t.put(results, t.KEY)
        print(await t.get(results, t.KEY) == t.CONTENT)
asyncio.run(main())
"""


def test_a_write_that_the_system_cuts_short_can_be_repeated(tmp_path: Path) -> None:
    """The kernel itself ends the write in the middle: a size limit on files, set in a child."""
    assert len(CONTENT) > 500_000
    program = LIMITED.format(here=str(Path(__file__).parent), limit=500_000, root=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["DISK_FULL []", "True"], done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
