"""Supervised dummies, and questions put to /proc."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from disagfusion.local.plan import ProcessSpec

READY = """
import json, os, sys, time
path = os.environ["DISAGFUSION_READY_FILE"]
address = os.environ.get("PINNED") or f"address-of-{os.getpid()}"
with open(path + ".new", "w") as file:
    json.dump({"pid": os.getpid(), "address": address, "metrics_address": ""}, file)
os.rename(path + ".new", path)
print("ready", flush=True)
"""


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; what only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def marked(mark: str) -> list[int]:
    """Running processes that have a variable MARK with this value in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"MARK={mark}".encode() in environment and alive(int(entry.name)):
            found.append(int(entry.name))
    return found


@pytest.fixture
def dummy(tmp_path: Path) -> Callable[..., ProcessSpec]:
    """Makes the specification of a process that announces itself and then runs some code."""

    def make(name: str, then: str = "time.sleep(1000)", **changes: object) -> ProcessSpec:
        values: dict[str, object] = {
            "name": name,
            "role": "dummy",
            "argv": (sys.executable, "-c", READY + then),
            "environment": {"MARK": str(tmp_path)},
            "ready_file": str(tmp_path / f"{name}.json"),
            "pin_address": "PINNED",
        }
        return ProcessSpec(**{**values, **changes})  # type: ignore[arg-type]

    return make
