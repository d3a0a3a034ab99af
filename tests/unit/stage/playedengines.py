"""Engines whose part a test plays, and a link that has them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.framing import Decoder, encode
from disagfusion.stage.launcher import EngineLauncher, EngineProcess, LaunchError
from disagfusion.stage.link import EngineLink
from disagfusion.stage.memory import SharedMemory
from disagfusion.v1 import engine_pb2

DIT, DECODER, ENCODER = (
    EngineConfig(stage=stage, engine="a:B", model="m", options=LoadOptions())
    for stage in (Stage.DIT, Stage.DECODER, Stage.ENCODER)
)
LOADED = {"loaded": engine_pb2.EngineLoaded(device="cpu", load_seconds=2.0)}
BEAT = {"heartbeat": engine_pb2.EngineHeartbeat()}
# No process has such an id.
_NOBODY = 1 << 30


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class Played(EngineProcess):
    """An engine whose part the test plays."""

    def __init__(self, number: int, config: EngineConfig, sock: socket.socket) -> None:
        self.pid = _NOBODY + number
        self.config = config
        self.killed = False
        self.lingers = False
        self._socket = sock
        self._exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait(self) -> str:
        return await asyncio.shield(self._exited)

    def kill(self) -> None:
        self.killed = True
        if not self.lingers:
            self.exit("killed")

    def exit(self, how: str = "exited") -> None:
        if not self._exited.done():
            self._socket.close()
            self._exited.set_result(how)

    def say(self, **message: Any) -> None:
        self._socket.sendall(encode(engine_pb2.EngineResponse(**message)))

    def heard(self) -> list[str | None]:
        """What it was told so far, the memory left out."""
        self._socket.setblocking(False)
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return []
        kinds = [m.WhichOneof("message") for m in Decoder(engine_pb2.EngineRequest).feed(data)]
        return [kind for kind in kinds if kind != "attach"]


class Stagehand(EngineLauncher):
    """Launches engines that are played; `blocked` and `broken` keep it from that."""

    def __init__(self) -> None:
        self.engines: list[Played] = []
        self.asked: list[EngineConfig] = []
        self.blocked = False
        self.broken = False

    async def launch(self, config: EngineConfig, sock: socket.socket) -> EngineProcess:
        self.asked.append(config)
        if self.blocked:
            await asyncio.Event().wait()
        if self.broken:
            raise LaunchError("nothing to start")
        self.engines.append(Played(len(self.engines), config, sock.dup()))
        return self.engines[-1]

    def of(self, config: EngineConfig) -> list[int]:
        return [engine.pid for engine in self.engines if engine.config == config]


class Listener:
    """Everything that it was told, in order; starts the next engine as a front does."""

    def __init__(self) -> None:
        self.told: list[str | int] = []
        self.link: EngineLink | None = None
        self._news = asyncio.Event()

    def launched(self, pid: int) -> None:
        self._note(pid)

    def message(self, message: engine_pb2.EngineResponse) -> None:
        step = message.step.run_id if message.HasField("step") else ""
        self._note(f"{message.WhichOneof('message')}{step}")

    def lost(self, reason: str) -> None:
        self._note(f"lost: {reason}")
        if self.link is not None:
            self.link.start()

    def _note(self, what: str | int) -> None:
        self.told.append(what)
        self._news.set()

    async def until(self, what: str | int) -> None:
        async with asyncio.timeout(30):
            while what not in self.told:
                self._news.clear()
                await self._news.wait()


class Scene:
    """A link with its DiT at work."""

    def __init__(self, memory: SharedMemory) -> None:
        self.hand = Stagehand()
        self.listener = Listener()
        self.link = EngineLink(self.hand, DIT, memory, self.listener, silence_seconds=60.0)
        self._pings = 100

    async def begin(self) -> Played:
        self.link.start()
        self.listener.link = self.link
        first = await self.engine(0)
        first.say(**LOADED)
        await self.listener.until("loaded")
        return first

    async def engine(self, number: int) -> Played:
        await until(lambda: len(self.hand.engines) > number)
        return self.hand.engines[number]

    async def ping(self, engine: Played) -> None:
        """Return when all is read that was said before: sockets are read in one go."""
        self._pings += 1
        engine.say(step=engine_pb2.RunStep(run_id=self._pings))
        await self.listener.until(f"step{self._pings}")

    def forget(self) -> None:
        self.listener.told.clear()
