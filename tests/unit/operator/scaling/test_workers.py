"""Workers are told by gRPC: the one that is meant, and no other at its address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from disagfusion_operator.scaling.workers import GrpcWorkers

from disagfusion.errors import FailedPreconditionError
from disagfusion.pipeline.stages import Stage
from disagfusion.rpc.channel import open_channel
from disagfusion.rpc.server import RpcServer
from disagfusion.stage.numbers import stage_number
from disagfusion.stage.servicer import StageServicer
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2
from disagfusion.v1.stage_pb2_grpc import StageServiceStub, add_StageServiceServicer_to_server


class Front:
    """A front whose worker is called x, and takes every stage at once."""

    def __init__(self) -> None:
        self.worker = stage_pb2.Worker(name="x", state=stage_pb2.WORKER_STATE_READY)
        self.machine = SimpleNamespace(describe=lambda: self.worker)

    def change_stage(self, stage: Stage, config: Any) -> None:
        self.worker.stages[:] = [stage_number(stage)]


@pytest.fixture
async def front() -> AsyncIterator[tuple[Front, int]]:
    front: Any = Front()
    server = RpcServer("127.0.0.1:0", ["disagfusion.v1.StageService"])
    servicer = StageServicer(front, lambda stage: None)  # type: ignore[arg-type, return-value]
    add_StageServiceServicer_to_server(servicer, server.grpc)
    address = await server.start()
    yield front, int(address.rpartition(":")[2])
    await server.stop(0)


async def test_the_worker_that_is_meant_changes(front: tuple[Front, int]) -> None:
    assert await GrpcWorkers(front[1]).change("127.0.0.1", "x", "dit", None, 10.0)
    assert list(front[0].worker.stages) == [pb.STAGE_DIT]


async def test_another_worker_at_its_address_changes_nothing(front: tuple[Front, int]) -> None:
    with pytest.raises(FailedPreconditionError, match="here is x and not y") as caught:
        await GrpcWorkers(front[1]).change("127.0.0.1", "y", "dit", None, 10.0)
    assert caught.value.reason == "OTHER_WORKER"
    assert not front[0].worker.stages


async def test_where_nobody_is_meant_whoever_answers_changes(front: tuple[Front, int]) -> None:
    request = stage_pb2.ChangeStageRequest(stage=pb.STAGE_DECODER)
    async with open_channel(f"127.0.0.1:{front[1]}") as channel:
        answer = await StageServiceStub(channel).ChangeStage(request, timeout=10.0)
    assert list(answer.worker.stages) == [pb.STAGE_DECODER]
