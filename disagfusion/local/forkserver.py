"""The parent of the engines: `python -m disagfusion.local.forkserver`.

It imports torch and diffusers once and forks an engine per request, so that an engine starts in a
fraction of a second instead of ten; with `DISAGFUSION_PRELOAD=emulated`, what emulated engines need
and no torch. Nothing here, nor in `engine.preload`, may run a torch
operation or touch UCX or CUDA: none of the three survives a fork.

A front connects to the unix socket `DISAGFUSION_LISTEN` and sends one line of JSON, the engine's
configuration, together with one descriptor (SCM_RIGHTS), the engine's end of a socket pair. The
answers are lines of JSON: `{"pid": …}`, and `{"exited": code}` when that engine has ended, where a
negative code is the number of a signal. When the connection ends first, the engine is killed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from disagfusion.stage import engine
from disagfusion.stage.process import die_with_parent

_LINE_LIMIT = 1 << 20


class _Connection:
    """A front's connection and the engine that was forked for it."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.received = b""
        self.descriptors: list[int] = []
        self.pid = 0

    def receive(self) -> bytes | None:
        """Take what has arrived; the complete line, or None if it has not come to its end."""
        data, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 1)
        self.descriptors += descriptors
        self.received += data
        if not data or len(self.received) > _LINE_LIMIT:
            raise ConnectionResetError
        line, end, _ = self.received.partition(b"\n")
        return line if end else None

    def say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # the front has gone
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self.socket.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


class ForkServer:
    """Forks engines on request, in the calling thread.

    Args:
        listener: A listening unix socket.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._connections: set[_Connection] = set()
        self._watched: dict[int, int] = {}

    def run(self) -> NoReturn:
        """Serve until this process is killed."""
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        connection = _Connection(accepted)
        self._connections.add(connection)
        self._selector.register(accepted, selectors.EVENT_READ, lambda _: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        try:
            line = connection.receive()
            if line is None or connection.pid:
                return
            if len(connection.descriptors) != 1:
                raise ValueError("a request needs exactly one descriptor")
            config = json.loads(line)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):
                sys.stderr.write(f"refused a request: {error}\n")
            self._drop(connection)
            return
        self._fork(connection, config)

    def _drop(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        self._connections.discard(connection)
        connection.close()
        if connection.pid:
            os.kill(connection.pid, signal.SIGKILL)

    def _fork(self, connection: _Connection, config: dict[str, Any]) -> None:
        parent = os.getpid()
        descriptor = connection.descriptors.pop()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_engine(parent, descriptor, config)
        os.close(descriptor)
        connection.pid = pid
        watch = os.pidfd_open(pid)
        self._selector.register(
            watch, selectors.EVENT_READ, lambda _: self._collect(watch, connection)
        )
        self._watched[pid] = watch
        connection.say({"pid": pid})

    def _collect(self, watch: int, connection: _Connection) -> None:
        pid, status = os.waitpid(connection.pid, 0)
        self._selector.unregister(watch)
        os.close(self._watched.pop(pid))
        connection.pid = 0
        if connection in self._connections:
            connection.say({"exited": os.waitstatus_to_exitcode(status)})
            self._drop(connection)

    def _become_engine(self, parent: int, descriptor: int, config: dict[str, Any]) -> NoReturn:
        code = 1
        try:
            die_with_parent(parent)
            self._selector.close()
            self._listener.close()
            for connection in self._connections:
                connection.close()
            for watch in self._watched.values():
                os.close(watch)
            code = engine.main(socket.socket(fileno=descriptor), config) or 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:  # noqa: BLE001 -- a child must never return into the server's loop
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _announce(path: str, address: str) -> None:
    ready = Path(path)
    fresh = ready.with_suffix(".new")
    fresh.write_text(json.dumps({"pid": os.getpid(), "address": address, "metrics_address": ""}))
    fresh.replace(ready)


def main() -> int:
    """Run the fork server with the settings in the environment."""
    address = os.environ["DISAGFUSION_LISTEN"]
    Path(address).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        # Fronts connect while this process still imports; they are answered afterwards.
        listener.listen(64)
        engine.preload()
        # What is imported stays shared with the engines instead of being copied by collections.
        gc.collect()
        gc.freeze()
        if ready := os.environ.get("DISAGFUSION_READY_FILE"):
            _announce(ready, address)
        ForkServer(listener).run()


if __name__ == "__main__":
    sys.exit(main())
