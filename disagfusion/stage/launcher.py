"""Starting engines: as children of the front, or forked by a server that has the imports done.

The protocol with the fork server, over a unix stream socket: the front connects and sends one line
of JSON, the engine's configuration, together with one descriptor (SCM_RIGHTS), the engine's end of
a socket pair. The answers are lines of JSON: `{"pid": …}`, and `{"exited": code}` when that engine
has ended, where a negative code is the number of a signal. When the connection ends first, the
server kills the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from abc import ABC, abstractmethod

from disagfusion.stage.config import EngineConfig

_FORK_SECONDS = 120.0
_EXIT_SECONDS = 2.0


class LaunchError(Exception):
    """No engine could be started."""


class EngineProcess(ABC):
    """An engine's process.

    Attributes:
        pid: Process id.
    """

    pid: int

    @abstractmethod
    async def wait(self) -> str:
        """Wait for its end; return how it ended, for people."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once; nothing happens if it has ended."""


class EngineLauncher(ABC):
    """A way to start engines."""

    @abstractmethod
    async def launch(self, config: EngineConfig, sock: socket.socket) -> EngineProcess:
        """Start an engine.

        Args:
            config: What it is told.
            sock: The engine's end of the socket pair; the caller closes it afterwards.

        Raises:
            LaunchError: It could not be started.
        """


def describe_exit(code: int) -> str:
    """Return what an exit status means, for people; negative ones are signals."""
    if code >= 0:
        return f"the engine exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the engine was ended by {name}"


class _Child(EngineProcess):
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> str:
        return describe_exit(await self._process.wait())

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


class SubprocessLauncher(EngineLauncher):
    """Starts each engine as a child of this process, with the same interpreter."""

    async def launch(self, config: EngineConfig, sock: socket.socket) -> EngineProcess:
        """See `EngineLauncher`."""
        arguments = [
            *("--socket", str(sock.fileno())),
            *("--parent", str(os.getpid())),
            *("--config", config.model_dump_json()),
        ]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "disagfusion.stage.engine"),
                *arguments,
                pass_fds=(sock.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise LaunchError(f"the engine's process cannot be started: {error}") from error
        return _Child(process)


class _Forked(EngineProcess):
    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self._reader = reader
        self._writer = writer
        # Its id may be another process's some day; a descriptor means this one for ever.
        self._descriptor = os.pidfd_open(pid)

    async def wait(self) -> str:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                line = await self._reader.readline()
            return describe_exit(int(json.loads(line)["exited"]))
        except (OSError, ValueError, KeyError, TypeError):
            # Engines die with their parent.
            return "the engine ended with the fork server"
        finally:
            self._writer.close()
            os.close(self._descriptor)
            self._descriptor = -1

    def kill(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)


class ForkServerLauncher(EngineLauncher):
    """Has each engine forked by a server.

    Args:
        path: The server's unix socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    async def launch(self, config: EngineConfig, sock: socket.socket) -> EngineProcess:
        """See `EngineLauncher`."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
            line = config.model_dump_json().encode() + b"\n"
            sent = socket.send_fds(connection, [line], [sock.fileno()])
            connection.sendall(line[sent:])
            connection.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=connection)
        except OSError as error:
            connection.close()
            raise LaunchError(f"the fork server at {self._path} is not there: {error}") from error
        try:
            async with asyncio.timeout(_FORK_SECONDS):
                answer = json.loads(await reader.readline())
            return _Forked(int(answer["pid"]), reader, writer)
        except (OSError, ValueError, KeyError, TypeError) as error:
            writer.close()
            raise LaunchError("the fork server did not fork an engine") from error
        except asyncio.CancelledError:
            # The server ends an engine that nobody waits for.
            writer.close()
            raise
