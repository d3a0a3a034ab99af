"""The front's end of the socket pair, and the life of the engine's process behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

from disagfusion.stage.channel import attach_message
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.framing import Decoder, FramingError, encode
from disagfusion.stage.launcher import EngineLauncher, EngineProcess, LaunchError
from disagfusion.stage.memory import SharedMemory
from disagfusion.stage.process import is_stopped, processor_seconds
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import engine_pb2

_CHECK_SECONDS = 0.5
# An engine beats every second; imports and large allocations may hold it up for a few.
_STOPPED_SECONDS = 2.0
# The share of a core that shows that an engine is at work.
_WORKS = 0.2
_SPINNING = 10
_END_SECONDS = 2.0
_REPLACED = "the engine makes way for another stage's"

_log = get_logger(__name__)


class EngineListener(Protocol):
    """Is told what happens to the engine. Called in the event loop; must not block."""

    def launched(self, pid: int) -> None:
        """The process exists."""

    def message(self, message: engine_pb2.EngineResponse) -> None:
        """The engine said something."""

    def lost(self, reason: str) -> None:
        """The process has ended, and writes to the memory no more."""


class _Pipe(asyncio.Protocol):
    def __init__(self, on_message: Callable[[engine_pb2.EngineResponse], None]) -> None:
        self._decoder = Decoder(engine_pb2.EngineResponse)
        self._on_message = on_message
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.heard = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            for message in self._decoder.feed(data):
                self._on_message(message)
        except FramingError as error:
            self.end(f"the engine is not understood: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self.end("")

    def end(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()


class EngineLink:
    """One engine after the other.

    Args:
        launcher: Starts them.
        config: What they are told.
        memory: What they compute in.
        listener: Is told what happens.
        silence_seconds: An engine that says and does nothing for so long is killed; one that says
            nothing but computes, after ten times as long.
    """

    def __init__(
        self,
        launcher: EngineLauncher,
        config: EngineConfig,
        memory: SharedMemory,
        listener: EngineListener,
        *,
        silence_seconds: float,
    ) -> None:
        self._launcher = launcher
        self._config = config
        self._memory = memory
        self._listener = listener
        self._silence = silence_seconds
        self._spinning = _SPINNING * silence_seconds
        self._pipe: _Pipe | None = None
        self._life: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to start an engine; `EngineListener.lost` follows sooner or later."""
        assert self._life is None
        self._life = asyncio.create_task(self._live(), name="engine")

    def replace(self, config: EngineConfig) -> None:
        """Let the engine that is there, if any, end, and start another kind from now on.

        Args:
            config: What engines are told from now on.
        """
        self._config = config
        if self._pipe is not None:
            self._pipe.end(_REPLACED)

    def send(self, **message: object) -> None:
        """Say something to the engine; nothing happens where there is none."""
        if self._pipe is not None:
            self._pipe.write(encode(engine_pb2.EngineRequest(**message)))  # type: ignore[arg-type]

    async def aclose(self) -> None:
        """End the engine."""
        if self._life is None:
            return
        if self._pipe is not None:
            self._pipe.end("the service ends")
        else:
            self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)

    async def _live(self) -> None:
        try:
            reason = await self._run()
        except LaunchError as error:
            reason = str(error)
        self._life = None
        self._listener.lost(reason)

    async def _run(self) -> str:
        config = self._config
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await self._launcher.launch(config, theirs)
        except BaseException:
            ours.close()
            raise
        self._listener.launched(process.pid)
        waiting = asyncio.create_task(process.wait(), name="engine-exit")
        try:
            return await self._talk(process, config, ours, waiting)
        finally:
            self._pipe = None
            process.kill()
            waiting.cancel()

    async def _talk(
        self,
        process: EngineProcess,
        config: EngineConfig,
        ours: socket.socket,
        waiting: asyncio.Task[str],
    ) -> str:
        # asyncio cannot pass descriptors; the few bytes fit into the socket's empty buffer.
        socket.send_fds(ours, [attach_message(self._memory)], [self._memory.descriptor])
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_connection(lambda: _Pipe(self._listener.message), sock=ours)
        self._pipe = pipe
        if config is not self._config:
            pipe.end(_REPLACED)
        watching = asyncio.create_task(self._watch(process, pipe), name="engine-watch")
        try:
            reason = await pipe.closed
        finally:
            watching.cancel()
            self._pipe = None
            pipe.close()
        # The engine ends by itself when its socket does, unless something is wrong with it.
        if reason:
            process.kill()
        try:
            async with asyncio.timeout(_END_SECONDS):
                exited = await asyncio.shield(waiting)
        except TimeoutError:
            process.kill()
            exited = await waiting
        return reason or exited

    async def _watch(self, process: EngineProcess, pipe: _Pipe) -> None:
        """Kill an engine that is silent and does nothing.

        Silence is counted in looks, not in seconds: a front that was held up itself must not take
        what it has not read yet for silence. An engine that imports or compiles may hold the
        interpreter's lock, which its beats need; what it takes of the processor shows that it
        lives, for a while.
        """
        silent = idle = 0
        worked = processor_seconds(process.pid)
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            before, worked = worked, processor_seconds(process.pid)
            silent = 0 if pipe.heard else silent + 1
            idle = 0 if pipe.heard or worked - before >= _WORKS * _CHECK_SECONDS else idle + 1
            pipe.heard = False
            seconds = silent * _CHECK_SECONDS
            patience = self._silence if idle * _CHECK_SECONDS >= self._silence else self._spinning
            if seconds >= patience:
                reason = f"the engine said nothing for {seconds:g} s"
            elif seconds >= _STOPPED_SECONDS and is_stopped(process.pid):
                reason = "the engine was stopped by a signal"
            else:
                continue
            _log.error("engine killed", engine_pid=process.pid, problem=reason)
            pipe.end(reason)
            return
