"""The process from its start to its end: who watches it, and what it finds out before it acts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest
from disagfusion_operator import __main__ as program
from disagfusion_operator.health import Vitals
from disagfusion_operator.k8s.kinds import PIPELINE, POD_MONITOR
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.reconcile.gateways import GrpcGateways
from disagfusion_operator.runtime import Runtime
from disagfusion_operator.settings import OperatorSettings
from fakes import FakeCluster, pipeline

from disagfusion.errors import NotFoundError

_STALLED = 0.05


class Hanging(FakeCluster):
    """An API server that does not answer to whoever applies something."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def apply(self, manifest: Object, *, force: bool = True) -> Object:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody answers")

    async def aclose(self) -> None:
        """Nothing is open."""


async def watch(
    cache: Cache, kinds: Any, namespaces: Any, stop: asyncio.Event, ready: asyncio.Event
) -> None:
    ready.set()
    await stop.wait()


async def test_a_process_whose_looks_come_to_no_end_is_not_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, made = Hanging(), []
    cluster.create(pipeline())

    async def connect(observe: Any) -> Hanging:
        return cluster

    def vitals(*args: Any) -> Vitals:
        made.append(Vitals(*args))
        return made[-1]

    monkeypatch.setattr(program.KubernetesCluster, "connect", connect)
    monkeypatch.setattr(program, "Vitals", vitals)
    monkeypatch.setattr(program, "watch", watch)
    settings = OperatorSettings(
        leader_election=False,
        health_listen="127.0.0.1:0",
        metrics_listen="",
        stalled_seconds=_STALLED,
    )
    serving = asyncio.create_task(program.serve(settings))
    async with asyncio.timeout(20):
        await cluster.asked.wait()
        (found,) = made
        while True:
            # The loop itself goes on.
            found.beat()
            verdict = found.alive()
            if verdict.message.startswith("no look at a pipeline has ended"):
                break
            await asyncio.sleep(_STALLED)
        assert not verdict.well
        os.kill(os.getpid(), signal.SIGTERM)
        assert await serving == 0


@pytest.mark.parametrize(
    ("setting", "known", "made"),
    [("auto", True, ["digits"]), ("auto", False, []), ("off", True, [])],
)
async def test_pod_monitors_are_made_where_the_cluster_knows_them(
    setting: Any, known: bool, made: Sequence[str]
) -> None:
    class Knowing(FakeCluster):
        async def list(self, kind: Any, namespace: str = "", labels: Any = None) -> Any:
            if kind == POD_MONITOR and not known:
                raise NotFoundError("no such kind")
            async for one in super().list(kind, namespace, labels):
                yield one

    cluster, looked = Knowing(), asyncio.Event()
    cluster.create(pipeline())
    runtime = Runtime(
        cluster,
        GrpcGateways(),
        OperatorSettings(pod_monitors=setting),
        lambda seconds, failed: looked.set(),
    )
    kinds = await runtime.known_kinds()
    assert (POD_MONITOR in kinds) is known
    assert PIPELINE in kinds
    running = asyncio.create_task(runtime.run(kinds))
    async with asyncio.timeout(20):
        await looked.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert cluster.names(POD_MONITOR) == made
