"""How a container's first process ends, and what it leaves for Kubernetes to show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from disagfusion import termination


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    monkeypatch.setenv("DISAGFUSION_TERMINATION_LOG", str(path))
    return path


def test_the_message_replaces_the_one_before(log: Path) -> None:
    log.write_text("something long that was wrong before")
    termination.explain("no such directory")
    assert log.read_text() == "no such directory"
    termination.explain("")
    assert log.read_text() == ""


def test_no_more_is_written_than_kubernetes_takes(log: Path) -> None:
    log.touch()
    termination.explain("x" * 5000)
    assert log.stat().st_size == 4096


def test_the_file_is_never_made(log: Path) -> None:
    termination.explain("nobody looks")
    assert not log.exists()


def test_a_failure_is_said_twice_and_has_a_status(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.touch()
    assert termination.fail("disagfusion-dit: DISAGFUSION_SLOTS: too few") == 1
    assert log.read_text() == "disagfusion-dit: DISAGFUSION_SLOTS: too few"
    assert capsys.readouterr().err == "disagfusion-dit: DISAGFUSION_SLOTS: too few\n"


def test_sigterm_ends_a_process_that_is_not_ready_for_it() -> None:
    program = (
        "from disagfusion import termination; termination.end_on_sigterm();"
        "import time; print('imports', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")


def test_the_gateway_says_why_it_does_not_start(log: Path) -> None:
    log.touch()
    environment = {**os.environ, "DISAGFUSION_LISTEN": "nowhere"}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "disagfusion_gateway"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert log.read_text().startswith("disagfusion-gateway: ")
    assert "nowhere" in log.read_text()
    assert ended.stderr.strip().splitlines()[-1] == log.read_text()
