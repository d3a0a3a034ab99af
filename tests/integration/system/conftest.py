"""One deployment for all tests of the whole system, made whole again after each."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from disagfusion.client import Client
from disagfusion.local import LocalRuntime

sys.path.insert(0, str(Path(__file__).parent))

from systemkit import PATIENCE, PROCESSES, System


@pytest.fixture(scope="package")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    failpoints = tmp_path_factory.mktemp("failpoints")
    environment = {}
    for process in PROCESSES:
        (failpoints / process).mkdir()
        environment[process] = {"DISAGFUSION_FAILPOINTS": str(failpoints / process)}
    with (
        LocalRuntime(
            dits=2, environment=environment, settings={"engine_silence_seconds": "5"}
        ) as runtime,
        Client(runtime.address) as client,
    ):
        yield System(runtime, client, failpoints)


@pytest.fixture
def system(deployment: System) -> Iterator[System]:
    """The deployment, whole again before and after each test."""
    yield deployment
    deployment.disarm()
    for entry in deployment.runtime.status():
        if entry.pid:
            os.kill(entry.pid, signal.SIGCONT)
    deployment.runtime.wait_ready(timeout=PATIENCE)
