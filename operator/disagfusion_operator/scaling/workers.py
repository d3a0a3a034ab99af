"""How the operator has workers change their stage."""

from __future__ import annotations

from abc import ABC, abstractmethod

from disagfusion.pipeline.stages import Stage
from disagfusion.rpc.calls import translated
from disagfusion.rpc.channel import open_channel
from disagfusion.rpc.tls import TlsSettings
from disagfusion.stage.numbers import stage_number
from disagfusion.v1 import generation_pb2, stage_pb2
from disagfusion.v1.stage_pb2_grpc import StageServiceStub
from disagfusion_operator.desired.names import STAGE_PORT


class Workers(ABC):
    """Tells workers."""

    @abstractmethod
    async def change(
        self, host: str, name: str, stage: str, tls: TlsSettings | None, seconds: float
    ) -> bool:
        """Have a worker take a stage; telling it again changes nothing.

        Args:
            host: Address of its pod; it may belong to another one by now.
            name: Of the worker, which is its pod's.
            stage: Which.
            tls: None without.
            seconds: That an answer may take.

        Returns:
            Whether it serves the stage already.

        Raises:
            DisagfusionError: It does not answer, or refuses; or it is another worker.
        """


class GrpcWorkers(Workers):
    """Tells them by gRPC.

    Args:
        port: Of workers.
    """

    def __init__(self, port: int = STAGE_PORT) -> None:
        self._port = port

    async def change(
        self, host: str, name: str, stage: str, tls: TlsSettings | None, seconds: float
    ) -> bool:
        """See `Workers`."""
        address = f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"
        number = stage_number(Stage(stage))
        request = stage_pb2.ChangeStageRequest(stage=number, worker=name)
        async with open_channel(address, tls=tls) as channel:
            with translated(address):
                answer = await StageServiceStub(channel).ChangeStage(request, timeout=seconds)
        worker = answer.worker
        return bool(
            list(worker.stages) == [number]
            and worker.changes_to in (number, generation_pb2.STAGE_UNSPECIFIED)
            and worker.state == stage_pb2.WORKER_STATE_READY
        )
