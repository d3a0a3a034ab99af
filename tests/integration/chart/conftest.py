"""Helm and the tools that look at what it renders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "disagfusion"
TOOLS = ROOT / ".tools" / "bin"

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """Run a tool: `tool(name, *arguments, values=…, text=…)`."""
    places = {f"HELM_{what}_HOME": str(tmp_path) for what in ("CACHE", "CONFIG", "DATA")}

    def run(
        name: str, *arguments: str, values: dict[str, Any] | None = None, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        path = TOOLS / name
        assert path.is_file(), f"{path} is not built: run `make test`"
        given = ["--values", "-"] if values is not None else []
        return subprocess.run(
            [str(path), *arguments, *given],
            input=yaml.safe_dump(values) if values is not None else text,
            env=os.environ | places,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def render(tool: Tool) -> Callable[..., str]:
    """Render the chart: `render(values)`."""

    def run(values: dict[str, Any]) -> str:
        done = tool("helm", "template", "x", str(CHART), "--kube-version=1.34.0", values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
