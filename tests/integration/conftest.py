"""One process that forks the engines of all tests but those about such a process.

Torch and diffusers are imported once instead of for each deployment; it starts with the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Where it is, for the processes among which xdist distributes the tests.
_DIRECTORY = "TESTS_FORK_SERVER"
_START_SECONDS = 300.0
_started: dict[str, subprocess.Popen[bytes]] = {}


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or config.option.collectonly or _DIRECTORY in os.environ:
        return
    directory = tempfile.mkdtemp(prefix="disagfusion-engines-")
    os.environ[_DIRECTORY] = directory
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        # For the engines of the benchmarks.
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "DISAGFUSION_LISTEN": f"{directory}/sock",
        "DISAGFUSION_READY_FILE": f"{directory}/ready",
    }
    with open(f"{directory}/log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "disagfusion.local.forkserver"],
            env=environment,
            stdout=log,
            stderr=log,
        )
    _started[directory] = process
    os.environ[f"{_DIRECTORY}_PID"] = str(process.pid)


def pytest_unconfigure() -> None:
    for directory, process in _started.items():
        process.kill()
        process.wait()
        shutil.rmtree(directory)
    _started.clear()


@pytest.fixture(scope="session")
def fork_server() -> str:
    """Its address; waits until it has imported everything."""
    directory = Path(os.environ[_DIRECTORY])
    deadline = time.monotonic() + _START_SECONDS
    while not (directory / "ready").exists():
        assert time.monotonic() < deadline, (directory / "log").read_text()
        time.sleep(0.05)
    return str(directory / "sock")


@pytest.fixture(scope="module")
def forked(fork_server: str) -> Iterator[None]:
    """Let `LocalRuntime`, also in other processes, have its engines forked there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISAGFUSION_FORK_SERVER", fork_server)
        yield
