from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gatewaykit.deployment import Stages
from gatewaykit.gateways import Api, InProcess, Process


class Bench:
    """Stages, a gateway and a client, ended with the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = AsyncExitStack()

    async def stages(self, **options: Any) -> Stages:
        stages = Stages(self.directory, **options)
        await stages.start()
        self._stack.push_async_callback(stages.stop)
        return stages

    async def gateway(self, **settings: object) -> InProcess:
        gateway = InProcess(self.directory, **settings)
        await gateway.start()
        self._stack.push_async_callback(gateway.stop)
        return gateway

    async def process(self, **settings: object) -> Process:
        process = Process(self.directory, **settings)
        await process.start()
        self._stack.push_async_callback(process.kill)
        return process

    def api(self, **options: Any) -> Api:
        api = Api(options.pop("address", f"unix:{self.directory}/gateway.sock"), **options)
        self._stack.push_async_callback(api.close)
        return api

    async def running(self, *, dits: int = 1, **settings: object) -> tuple[Stages, InProcess, Api]:
        stages = await self.stages(dits=dits)
        gateway = await self.gateway(workers=stages.workers, **settings)
        return stages, gateway, self.api()

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


Started = Callable[..., Awaitable[tuple[Stages, InProcess, Api]]]
