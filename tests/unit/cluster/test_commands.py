"""Programs that are run to their end, and Debian's that are installed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tools import commands
from tools.cluster.commands import run, succeeds
from tools.cluster.errors import ClusterError


class ThisError(Exception):
    pass


def _python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", script, *arguments]


def test_input_variables_and_directory_reach_a_program(tmp_path: Path) -> None:
    script = "import os, sys; print(os.getcwd(), os.environ['SOME'], sys.stdin.read())"
    said = commands.run(
        _python(script), error=ThisError, text="x", environment={"SOME": "y"}, directory=tmp_path
    )
    assert said == f"{tmp_path} y x\n"
    assert commands.run(_python("print(open(0).read())"), error=ThisError) == "\n"


def test_a_failure_shows_the_last_lines_and_the_command() -> None:
    script = "import sys; print(*range(30), sep='\\n'); sys.exit('no space left')"
    with pytest.raises(ThisError) as caught:
        commands.run(_python(script, *"abcdefgh"), error=ThisError)
    first, *rest, last = str(caught.value).splitlines()
    assert first == f"{os.path.basename(sys.executable)} failed with status 1:"
    assert "(" + sys.executable in str(caught.value)
    assert (rest[0], rest[19]) == ("11", "no space left")
    assert last.endswith(" a b c d e …)")


def test_what_is_not_there_or_takes_too_long() -> None:
    with pytest.raises(ThisError, match="no-such-program is not installed"):
        commands.run(["no-such-program"], error=ThisError)
    with pytest.raises(ThisError, match=r"took longer than 0\.1 s"):
        commands.run(_python("import time; time.sleep(60)"), error=ThisError,
                     seconds=0.1)  # fmt: skip
    assert not succeeds("no-such-program")
    assert succeeds(*_python(""))
    with pytest.raises(ClusterError, match="status 3"):
        run(*_python("raise SystemExit(3)"))


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A played apt-get with lists that are too old until it updates them; what it was told."""
    told, tool = tmp_path / "told", tmp_path / "apt-get"
    tool.write_text(
        f'#!/bin/sh\necho "$1 $DEBIAN_FRONTEND $RUNLEVEL" >>{told}\n'
        f'[ "$1" = update ] || grep -q update {told}\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return told


def test_lists_are_updated_where_a_package_is_not_to_be_had(apt: Path) -> None:
    commands.install([], error=ThisError)
    assert not apt.exists()
    commands.install(["some", "more"], error=ThisError)
    quiet = "noninteractive 1"
    assert apt.read_text().splitlines() == [
        f"install {quiet}", f"update {quiet}", f"install {quiet}",
    ]  # fmt: skip
    commands.install(["some"], error=ThisError)
    assert apt.read_text().splitlines()[3:] == [f"install {quiet}"]


def test_packages_that_cannot_be_installed_are_named(
    apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ThisError, match="missing: some, more; only root can install them"):
        commands.install(["some", "more"], error=ThisError)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ThisError, match="or what this system calls them"):
        commands.install(["some"], error=ThisError)
    assert not apt.exists()
