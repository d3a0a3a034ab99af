"""A service's sign of life, for as long as its loop turns."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from disagfusion.stage import command


async def test_the_ready_file_is_touched_while_the_service_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> None:
        return None

    monkeypatch.setattr(command, "_BEAT_SECONDS", 0.01)
    service: Any = SimpleNamespace(address="a", metrics_address="m", start=nothing, stop=nothing)
    ready = tmp_path / "ready.json"
    running = asyncio.create_task(command.serve(service, ready))
    async with asyncio.timeout(20):
        while not ready.exists():  # noqa: ASYNC110 -- a file has no event
            await asyncio.sleep(0.005)
        for _ in range(2):
            os.utime(ready, (0, 0))
            while ready.stat().st_mtime == 0:  # noqa: ASYNC110 -- a file has no event
                await asyncio.sleep(0.005)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
