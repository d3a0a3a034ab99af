"""A disk that is really full: a small tmpfs in a mount namespace of the test's own."""

import os
import subprocess
import sys
from pathlib import Path

HEAD = """
import asyncio, shutil, subprocess, sys
from pathlib import Path
root = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=SIZE", "tmpfs", str(root)], check=True)

import hashlib
from disagfusion.errors import ResourceExhaustedError
from disagfusion.jobs.directory_results import DirectoryResultStore
from disagfusion.jobs.model import *
from disagfusion.jobs.results import ResultKey
from disagfusion.jobs.sql_store import SqlJobStore
from disagfusion.telemetry import logging

logging.configure()  # to standard error: the answers stand alone
CONTENT = b"c" * 200_000
OUTPUT = Output(0, "image/png", len(CONTENT), 1, 1, 1, hashlib.sha256(CONTENT).hexdigest())

async def chunks():
    yield CONTENT

"""

FULL = """
def change(i, message=""):
    return Transition(
        f"job-{i}", JobState.QUEUED, 1, JobState.DECODING, StageStatus.WAITING, 1, 2.0,
        message=message,
    )

async def main():
    store = SqlJobStore(f"sqlite:///{root}/jobs.db", min_free_bytes=0)
    async with store, DirectoryResultStore(root / "results", min_free_bytes=0) as results:
        accepted = 0
        ballast = root / "ballast"
        await store.submit(NewJob("job-0", "t", "p", b"r", "f", 1.0))
        accepted = 1
        free = shutil.disk_usage(root).free
        ballast.write_bytes(bytes(free - 150_000))
        try:
            while True:
                await store.submit(NewJob(f"job-{accepted}", "t", "p", b"r" * 9000, "f", 1.0))
                accepted += 1
        except ResourceExhaustedError as error:
            print("refused", error.reason)
        with ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        try:
            await results.write(ResultKey("job-0", 1, 0), OUTPUT, chunks())
        except ResourceExhaustedError as error:
            print("result", error.reason)
        changes = [
            asyncio.create_task(store.transition(change(i, "m" * 4000))) for i in range(accepted)
        ]
        done, waiting = await asyncio.wait(changes, timeout=1.0)
        print("waiting", bool(waiting))
        print("readable", len(await store.unfinished()) == accepted)
        ballast.unlink()
        await asyncio.gather(*changes)
        await results.write(ResultKey("job-0", 1, 0), OUTPUT, chunks())
        await store.complete(Completion("job-0", 1, 3.0, (OUTPUT,)))
        states = [(await store.load(f"job-{i}")).state.name for i in range(accepted)]
        print("states", states[0], set(states[1:]) == {"DECODING"}, accepted > 1)

asyncio.run(main())
"""


REFILLED = """
PICTURE = InputImage("image", bytes(300_000))

async def main():
    store = SqlJobStore(f"sqlite:///{root}/jobs.db", min_free_bytes=4 << 20)
    async with store:
        for turn in range(3):
            accepted = []
            try:
                while True:
                    name = f"job-{turn}-{len(accepted)}"
                    images = (PICTURE,)
                    await store.submit(NewJob(name, "t", "p", b"r", "f", 1.0, images=images))
                    accepted.append(name)
            except ResourceExhaustedError as error:
                print(turn, len(accepted) >= 10, error.reason)
            for name in accepted:
                end = JobState.CANCELLED
                change = Transition(name, JobState.QUEUED, 1, end, StageStatus.WAITING, 1, 2.0)
                await store.transition(change)

asyncio.run(main())
"""


def run(program: str, size: str, root: Path) -> list[str]:
    """Run a program whose disk is small, and return what it has written."""
    # Root needs no user namespace of its own; some systems forbid them to others.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    namespace = ["unshare", *user, "--mount"]
    probe = subprocess.run([*namespace, "true"], capture_output=True, text=True, check=False)
    assert probe.returncode == 0, f"no mount namespace of our own: {probe.stderr}"
    text = HEAD.replace("SIZE", size) + program
    done = subprocess.run(
        [*namespace, sys.executable, "-c", text, str(root)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_new_jobs_are_refused_and_none_accepted_is_lost(tmp_path: Path) -> None:
    assert run(FULL, "2m", tmp_path) == [
        "refused DISK_FULL",
        "result DISK_FULL",
        "waiting True",
        "readable True",
        "states SUCCEEDED True True",
    ]


def test_a_store_that_was_full_takes_as_many_jobs_again(tmp_path: Path) -> None:
    expected = [f"{turn} True DISK_FULL" for turn in range(3)]
    assert run(REFILLED, "16m", tmp_path) == expected
