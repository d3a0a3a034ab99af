"""`disagfusion balance`, on a data directory."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path

import pytest

from disagfusion.cli import app
from disagfusion.local.hold import HOLD_FILE, Hold, read_hold, write_hold


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        app.main(["balance", *arguments])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err


def test_pause_and_resume(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    where = ("--data-dir", str(data))
    assert run(capsys, "pause", *where, "--why", "a  demonstration") == (
        0, "held from the next decision on\n",
    )  # fmt: skip
    hold = read_hold(data / HOLD_FILE)
    assert hold is not None
    assert (hold.by, hold.why) == (getpass.getuser(), "a demonstration")
    assert hold.since == pytest.approx(time.time(), abs=60.0)
    assert run(capsys, "resume", *where) == (0, "balanced again from the next decision on\n")
    assert read_hold(data / HOLD_FILE) is None
    assert run(capsys, "resume", *where) == (0, "it was not held\n")


def test_status(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    where = ("--data-dir", str(data))
    assert run(capsys, "status", *where) == (0, "not held\n")
    write_hold(data / HOLD_FILE, Hold("ann", "drivers", 1e9))
    entries = [
        {"time": 1e9 + number, "reason": reason, "message": "what it says"}
        for number, reason in enumerate(("BALANCED", "PAUSED"))
    ]
    (data / "decisions.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in entries))
    _, text = run(capsys, "status", *where)
    first, second = text.splitlines()
    assert first.startswith("held by ann: drivers, since 2001-09-")
    assert second.startswith("last decision: PAUSED, what it says, 2001-09-")


@pytest.mark.parametrize("line", ["", "half a li", "[1]", '{"reason": "PAUSED"}'])
def test_a_decision_log_that_says_nothing(
    capsys: pytest.CaptureFixture[str], data: Path, line: str
) -> None:
    (data / "decisions.jsonl").write_text(line)
    assert run(capsys, "status", "--data-dir", str(data)) == (0, "not held\n")


@pytest.mark.parametrize("command", ["pause", "resume", "status"])
def test_another_directory_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    code, text = run(capsys, command, "--data-dir", str(tmp_path))
    assert code == 2
    assert text == (
        f"error: --data-dir: {tmp_path} (expected the data directory of `disagfusion serve`)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_directory_that_lets_nobody_write(
    capsys: pytest.CaptureFixture[str], data: Path, command: str
) -> None:
    (data / HOLD_FILE).mkdir()
    code, text = run(capsys, command, "--data-dir", str(data))
    assert code == 4
    assert f"{HOLD_FILE} cannot be " in text
    assert {file.name for file in data.iterdir()} == {"results", HOLD_FILE}
