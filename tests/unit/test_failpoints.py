import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from disagfusion import failpoints
for _ in range(3):
    failpoints.reach("other")
    failpoints.reach("here")
print("survived")
"""


def run(directory: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ}
    if directory is not None:
        environment["DISAGFUSION_FAILPOINTS"] = str(directory)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_does_nothing_unless_asked(tmp_path: Path) -> None:
    assert run(None).stdout == "survived\n"
    assert run(tmp_path).stdout == "survived\n"


@pytest.mark.parametrize("passes", [1, 3])
def test_dies_once_at_the_pass_asked_for(tmp_path: Path, passes: int) -> None:
    (tmp_path / "here").write_text(str(passes))
    assert run(tmp_path).returncode == -signal.SIGKILL
    assert (tmp_path / "here.reached").exists()
    assert run(tmp_path).stdout == "survived\n"


def test_survives_before_the_pass_asked_for(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("4")
    assert run(tmp_path).stdout == "survived\n"
    assert (tmp_path / "here").read_text() == "1"


def test_a_malformed_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("soon")
    result = run(tmp_path)
    assert result.returncode == 1
    assert "ValueError" in result.stderr
