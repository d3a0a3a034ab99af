"""The same thread over UCX."""

from __future__ import annotations

import asyncio

from stagekit.driver import Driver, Worker, generation
from stagekit.processes import Cluster


async def test_a_picture_is_the_same_over_ucx(cluster: Cluster, driver: Driver) -> None:
    over_tcp = await driver.generate("tcp", generation())
    fronts = await asyncio.to_thread(
        lambda: cluster.fronts("encoder", "dit", "decoder", transport="ucx")
    )
    workers = [Worker(front.address) for front in fronts]
    async with workers[0], workers[1], workers[2]:
        for worker in workers:
            await worker.ready()
        over_ucx = Driver(*workers)
        for number in range(5):
            assert await over_ucx.generate(f"ucx-{number}", generation()) == over_tcp
        sent = workers[0].all("sent")[0].sent
        assert sent.transport.startswith("ucx/")
        labels = {"transport": sent.transport, "direction": "sent"}
        total = fronts[0].metric("disagfusion_transfer_bytes_total", **labels)
        assert total == sum(message.sent.size_bytes for message in workers[0].all("sent"))
    for front in fronts:
        assert await asyncio.to_thread(front.stop) == 0
