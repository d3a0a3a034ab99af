"""One fork server, and one front of each stage, for the tests that do not need others."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stagekit.driver import Driver, Worker
from stagekit.processes import Cluster, Process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # The first one waits for torch and diffusers to be imported.
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory, fork_server: str) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("stage"), fork_server)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="package")
def fronts(cluster: Cluster) -> dict[str, Process]:
    stages = ("encoder", "dit", "decoder")
    return dict(zip(stages, cluster.fronts(*stages), strict=True))


@pytest.fixture
async def driver(fronts: dict[str, Process]) -> AsyncIterator[Driver]:
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(Worker(fronts[stage].address))
            for stage in ("encoder", "dit", "decoder")
        ]
        for worker in workers:
            await worker.ready()
        yield Driver(*workers)
