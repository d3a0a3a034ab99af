"""How processes say that they run, and why they end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from disagfusion import process, termination
from disagfusion.errors import FailedPreconditionError
from disagfusion.telemetry import metrics


class _Pools(BaseModel):
    size: int


class _Settings(BaseModel):
    slots: int
    pools: list[_Pools] = []


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv(termination.ENVIRONMENT, str(path))
    return path


def test_wrong_settings_are_one_line_by_their_variables(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, process.explained("some-program", "SOME_"):
        _Settings.model_validate({"slots": "many", "pools": [{"size": "x"}]})
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("some-program: SOME_SLOTS: Input should be a valid integer")
    assert "; SOME_POOLS.0.SIZE: Input should be" in line
    assert log.read_text() == line


def test_what_cannot_be_done_is_one_line(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, process.explained("some-program"):
        raise FailedPreconditionError("the volume is full", reason="NO_SPACE")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "some-program: the volume is full\n"
    assert log.read_text() == "some-program: the volume is full"


def test_a_defect_is_none_of_them() -> None:
    with pytest.raises(ZeroDivisionError), process.explained("some-program"):
        _ = 1 // 0


def test_a_ready_file_is_all_that_is_left(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    path.write_text("of the one before")
    process.write_ready(path, address="127.0.0.1:1", metrics_address="127.0.0.1:2")
    assert json.loads(path.read_text()) == {
        "pid": os.getpid(), "address": "127.0.0.1:1", "metrics_address": "127.0.0.1:2",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_on_an_address_that_is_taken_or_none() -> None:
    registry = metrics.new_registry("dit")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for listen in (address, "nowhere"):
            with pytest.raises(FailedPreconditionError, match=f"metrics on {listen}: ") as caught:
                process.serve_metrics(listen, registry)
            assert caught.value.reason == "ADDRESS_UNUSABLE"


def test_a_balancer_with_a_wrong_setting_says_which() -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "disagfusion.balancing"],
        env={**os.environ, "DISAGFUSION_BALANCE_PERIOD_SECONDS": "often"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("disagfusion-balancer: DISAGFUSION_")
