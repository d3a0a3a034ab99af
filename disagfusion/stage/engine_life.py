"""One engine's process, from its launch until it has ended for sure."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from disagfusion.stage.channel import attach_message
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.framing import Decoder, FramingError
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

_log = get_logger(__name__)


class EngineListener(Protocol):
    """Is told what happens to an engine. Called in the event loop; must not block."""

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


class EngineLife:
    """An engine's process; begins with this object.

    Args:
        launcher: Starts it.
        config: What it is told.
        memory: What it computes in.
        listener: Is told what happens.
        silence_seconds: After which it is killed if it says and does nothing; if it says nothing
            but computes, after ten times as long.
        after: Lives that have to be over before it begins.
        on_end: Called last of all.

    Attributes:
        config: What it is told.
        listener: Who is told what happens from now on.
        leaving: Why it was asked to end; empty if it was not.
        ended: Whether it is over, which the listener is told next.
    """

    def __init__(
        self,
        launcher: EngineLauncher,
        config: EngineConfig,
        memory: SharedMemory,
        listener: EngineListener,
        *,
        silence_seconds: float,
        after: Sequence[EngineLife],
        on_end: Callable[[EngineLife], None],
    ) -> None:
        self.config = config
        self.listener = listener
        self.leaving = ""
        self.ended = False
        self._launcher = launcher
        self._memory = memory
        self._silence = silence_seconds
        self._spinning = _SPINNING * silence_seconds
        self._process: EngineProcess | None = None
        self._pipe: _Pipe | None = None
        self._task = asyncio.create_task(self._live(after), name="engine")
        self._task.add_done_callback(lambda _: on_end(self))

    def send(self, data: bytes) -> None:
        """Write to the engine; nothing happens before it has a socket and after that is closed."""
        if self._pipe is not None:
            self._pipe.write(data)

    def end(self, reason: str) -> None:
        """Have it end as soon as possible; nothing happens if it was asked before.

        Args:
            reason: Why, for people; not empty.
        """
        self.leaving = self.leaving or reason
        if self._pipe is not None:
            self._pipe.end(self.leaving)

    async def wait(self) -> None:
        """Wait until it is over."""
        await asyncio.wait({self._task})

    async def aclose(self) -> None:
        """End it, also while it is being launched, and wait until it is over."""
        self.end("the service ends")
        if self._process is None:
            self._task.cancel()
        else:
            self._process.kill()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _live(self, after: Sequence[EngineLife]) -> None:
        for life in after:
            await life.wait()
        try:
            reason = self.leaving or await self._run()
        except LaunchError as error:
            reason = str(error)
        # It died before it was given the memory.
        except OSError as error:
            reason = f"the engine does not listen: {error}"
        self.ended = True
        self.listener.lost(reason)

    async def _run(self) -> str:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await self._launcher.launch(self.config, theirs)
        except BaseException:
            ours.close()
            raise
        self._process = process
        self.listener.launched(process.pid)
        waiting = asyncio.create_task(process.wait(), name="engine-exit")
        try:
            return await self._talk(process, ours, waiting)
        finally:
            self._pipe = None
            process.kill()
            waiting.cancel()

    async def _talk(
        self, process: EngineProcess, ours: socket.socket, waiting: asyncio.Task[str]
    ) -> str:
        # asyncio cannot pass descriptors; the few bytes fit into the socket's empty buffer.
        socket.send_fds(ours, [attach_message(self._memory)], [self._memory.descriptor])
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_connection(lambda: _Pipe(self._said), sock=ours)
        self._pipe = pipe
        if self.leaving:
            pipe.end(self.leaving)
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

    def _said(self, message: engine_pb2.EngineResponse) -> None:
        self.listener.message(message)

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
