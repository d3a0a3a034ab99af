"""A disk that is really full: a small tmpfs in a mount namespace of the test's own."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, subprocess, sys
from pathlib import Path
root = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(root)], check=True)

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
        free = store.free_bytes()
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


def test_new_jobs_are_refused_and_none_accepted_is_lost(tmp_path: Path) -> None:
    # Root needs no user namespace of its own; some systems forbid them to others.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    namespace = ["unshare", *user, "--mount"]
    probe = subprocess.run([*namespace, "true"], capture_output=True, text=True, check=False)
    assert probe.returncode == 0, f"no mount namespace of our own: {probe.stderr}"
    done = subprocess.run(
        [*namespace, sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "refused DISK_FULL",
        "result DISK_FULL",
        "waiting True",
        "readable True",
        "states SUCCEEDED True True",
    ], done.stdout + done.stderr
