"""The Makefile documents itself, and says what is missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_target_that_is_for_people() -> None:
    lines = make("help").stdout
    for target in ("setup", "demo", "fmt", "lint", "test", "proto", "docs", "lock", "clean"):
        assert f"make {target}" in lines


def test_help_is_the_default() -> None:
    assert make().stdout == make("help").stdout


def test_without_a_python_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "requirements").mkdir()
    for name in ("bootstrap.txt", "dev.txt"):
        (tmp_path / "requirements" / name).write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    done = make("setup", "PYTHON=", cwd=tmp_path)
    assert done.returncode != 0
    assert "needs Python 3.11 or later" in done.stderr


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
