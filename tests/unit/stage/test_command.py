"""Signals, and how a service's process ends."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from disagfusion.errors import FailedPreconditionError
from disagfusion.stage import command


class Service:
    """Starts and drains when it is told to."""

    address = "a"
    metrics_address = "m"

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.starting = asyncio.Event()
        self.may_start = asyncio.Event()
        self.draining = asyncio.Event()
        self.may_end = asyncio.Event()

    async def start(self) -> None:
        self.starting.set()
        try:
            await self.may_start.wait()
        except asyncio.CancelledError:
            self.seen.append("not started")
            raise
        self.seen.append("started")

    async def drain(self) -> None:
        self.draining.set()
        await self.may_end.wait()
        self.seen.append("drained")

    async def stop(self) -> None:
        self.seen.append("stopped")


@pytest.fixture
def service() -> Service:
    return Service()


def served(service: Any) -> asyncio.Task[None]:
    return asyncio.create_task(command.serve(service, None))


async def test_a_signal_drains_and_ends(service: Service) -> None:
    service.may_start.set()
    service.may_end.set()
    running = served(service)
    await service.starting.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert service.seen == ["started", "drained", "stopped"]


async def test_a_second_signal_ends_at_once(service: Service) -> None:
    service.may_start.set()
    running = served(service)
    await service.starting.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await service.draining.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert service.seen == ["started", "stopped"]


async def test_a_signal_during_the_start_ends_it(service: Service) -> None:
    running = served(service)
    await service.starting.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert service.seen == ["not started"]


async def test_what_prevents_the_start_is_raised(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start() -> None:
        raise FailedPreconditionError("no")

    monkeypatch.setattr(service, "start", start)
    with pytest.raises(FailedPreconditionError, match="no"):
        await served(service)
