"""The alert rules in Prometheus' own words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .conftest import tool

RULES = Path(__file__).parents[3] / "charts" / "disagfusion" / "rules"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"),
        ("test", "rules", "alerts_test.yaml"),
    ],
    ids=["check", "test"],
)
def test_promtool_finds_nothing(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments],
        cwd=RULES,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
