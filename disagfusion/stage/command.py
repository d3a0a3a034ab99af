"""A stage service's command line: settings, signals, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Protocol

from disagfusion import process
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import StageService
from disagfusion.stage.settings import StageSettings
from disagfusion.telemetry import logging, tracing

_BEAT_SECONDS = 1.0

_log = logging.get_logger(__name__)


async def serve(service: StageService, ready_file: Path | None) -> None:
    """Run a service until SIGTERM or SIGINT, then drain it; a second signal ends it at once.

    Raises:
        DisagfusionError: It cannot start.
    """
    signals: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, None)
    if not await _start(service, signals):
        return
    _log.info("front listens", address=service.address, metrics=service.metrics_address)
    beats = None
    try:
        if ready_file is not None:
            process.write_ready(
                ready_file, address=service.address, metrics_address=service.metrics_address
            )
            beats = asyncio.create_task(_beat(ready_file))
        await signals.get()
        _log.info("draining")
        ends = [asyncio.create_task(service.drain()), asyncio.create_task(signals.get())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
    finally:
        await service.stop()
        if beats is not None:
            beats.cancel()
    _log.info("front ended")


async def _start(service: StageService, signals: asyncio.Queue[None]) -> bool:
    """Start a service; return whether it runs, which it does not if a signal came first."""
    starting = asyncio.create_task(service.start())
    signalled = asyncio.create_task(signals.get())
    await asyncio.wait((starting, signalled), return_when=asyncio.FIRST_COMPLETED)
    if not signalled.done():
        signalled.cancel()
        await starting
        return True
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
        await service.stop()
    return False


async def _beat(path: Path) -> None:
    """Touch the ready file again and again: a supervisor takes it for the sign of life."""
    while True:
        await asyncio.sleep(_BEAT_SECONDS)
        with contextlib.suppress(OSError):
            os.utime(path)


class MakeService(Protocol):
    """Makes a stage service that has not been started."""

    def __call__(self, stage: Stage, engine: str, settings: StageSettings) -> StageService:
        """Return a service; see `StageService`."""


def main(stage: Stage, engine: str, make: MakeService = StageService) -> None:
    """Run a stage service from the command line, with settings from the environment.

    Args:
        stage: Which stage.
        engine: The class that computes it, as "module:Class".
        make: Makes the service.
    """
    try:
        with process.explained(f"disagfusion-{stage.value}"):
            settings = StageSettings()
            logging.configure(
                settings.log_format,
                settings.log_level,
                component=stage.value,
                worker=settings.name,
                pipeline=settings.pipeline,
            )
            tracing.configure(stage.value)
            service = make(stage, engine, settings)
            asyncio.run(serve(service, settings.ready_file))
    finally:
        tracing.shutdown()
