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


def run(value: str | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ}
    if value is not None:
        environment["DISAGFUSION_FAILPOINT"] = value
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_does_nothing_unless_asked() -> None:
    assert run(None).stdout == "survived\n"


@pytest.mark.parametrize("at", [1, 3])
def test_dies_once_at_the_pass_asked_for(tmp_path: Path, at: int) -> None:
    marker = tmp_path / "marker"
    value = f"here@{at}:{marker}"
    assert run(value).returncode == -signal.SIGKILL
    assert marker.exists()
    assert run(value).stdout == "survived\n"


def test_survives_before_the_pass_asked_for(tmp_path: Path) -> None:
    assert run(f"here@4:{tmp_path / 'marker'}").stdout == "survived\n"


def test_a_malformed_value_is_an_error() -> None:
    result = run("here")
    assert result.returncode == 1
    assert "NAME@N:/path/of/marker" in result.stderr
