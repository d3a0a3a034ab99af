"""Fronts without engines for every stage of a pipeline."""

from __future__ import annotations

from pathlib import Path

from disagfusion.jobs.model import Stage
from disagfusion.rpc.tls import TlsSettings

from .stages import FakeStage, Network


class Stages:
    """An encoder, DiTs and a decoder on unix sockets."""

    def __init__(self, directory: Path, dits: int = 1, tls: TlsSettings | None = None) -> None:
        self.network = Network()
        self.tls = tls
        self._directory = directory
        names = ["encoder-0", *(f"dit-{n}" for n in range(dits)), "decoder-0"]
        self.by_name = {name: FakeStage(_stage_of(name), name, self.network) for name in names}

    def __getitem__(self, name: str) -> FakeStage:
        return self.by_name[name]

    def address(self, name: str) -> str:
        return f"unix:{self._directory / name}.sock"

    @property
    def workers(self) -> str:
        return ",".join(f"{name}={self.address(name)}" for name in self.by_name)

    async def start(self) -> None:
        for name, stage in self.by_name.items():
            await stage.start(self.address(name), self.tls)

    async def stop(self) -> None:
        for stage in self.by_name.values():
            await stage.stop()

    def release_all(self) -> None:
        for stage in self.by_name.values():
            stage.release_all()

    async def restart(self, name: str) -> FakeStage:
        """End a front as if by SIGKILL, and start another in its place."""
        old = self.by_name[name]
        del self.network.by_incarnation[old.incarnation]
        await old.stop()
        number = int(old.incarnation.rpartition(".")[2]) + 1
        new = FakeStage(old.stage, name, self.network, incarnation=str(number))
        self.by_name[name] = new
        await new.start(self.address(name), self.tls)
        return new


def _stage_of(name: str) -> Stage:
    return {"encoder": Stage.ENCODER, "dit": Stage.DIT, "decoder": Stage.DECODER}[
        name.partition("-")[0]
    ]
