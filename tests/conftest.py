"""What all tests share: small thread pools, reproducible examples, and no leftovers."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from postgres_server import PostgresServer

# Before anything imports torch: tests run beside each other on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What a developer's shell may have set must not decide what is tested.
for name in [name for name in os.environ if name.startswith("DISAGFUSION_")]:
    del os.environ[name]
os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
# A shell that runs the tests in the background, or nohup, hands these down ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session", autouse=True)
def frozen() -> None:
    """Leave what was imported out of every garbage collection: some tests ask for hundreds."""
    gc.collect()
    gc.freeze()


def _segments() -> set[str]:
    return {path.name for path in SHARED_MEMORY.glob("*disagfusion*")}


@pytest.fixture(scope="session", autouse=True)
def no_leftovers() -> Iterator[None]:
    """Fail the run if it leaves a process or a shared-memory segment behind."""
    segments = _segments()
    yield
    children = psutil.Process().children(recursive=True)
    # multiprocessing's own helper lives as long as its parent.
    forks = os.environ.get("TESTS_FORK_SERVER_PID")
    leaked = [
        " ".join(child.cmdline())
        for child in children
        if child.status() != "zombie" and str(child.pid) != forks
    ]
    leaked = [line for line in leaked if line and "multiprocessing.resource_tracker" not in line]
    assert not leaked, f"processes left behind: {leaked}"
    assert _segments() <= segments, f"shared memory left behind: {_segments() - segments}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; each test makes a database of its own."""
    server = PostgresServer()
    yield server
    server.close()
