"""The supervisor's process: `python -m disagfusion.local`, started by `LocalRuntime`.

Standard input is a socket. Its first line is a `Plan`; after that each line is a command
`{"id", "command": "status" | "wait", "timeout"}` and is answered by `{"id", "processes"}`. When the
socket ends, or the owner's process does, or a signal asks for it, everything ends.

Where the plan names a control socket, `{"command": "status"}` and
`{"command": "start" | "stop" | "assign", "name", "role"}` are answered there, by `{"processes"}` or
`{"error"}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
from typing import Any

from disagfusion.errors import DisagfusionError
from disagfusion.local import death
from disagfusion.local.plan import Plan
from disagfusion.local.supervisor import Supervisor


def _answer(number: int, supervisor: Supervisor) -> bytes:
    processes = [dataclasses.asdict(status) for status in supervisor.status()]
    return json.dumps({"id": number, "processes": processes}).encode() + b"\n"


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, supervisor: Supervisor
) -> None:
    while line := await reader.readline():
        command: dict[str, Any] = json.loads(line)
        if command["command"] == "wait":
            settled = asyncio.create_task(supervisor.settled())
            await asyncio.wait([settled], timeout=command["timeout"])
            settled.cancel()
        writer.write(_answer(command["id"], supervisor))
        await writer.drain()


async def _control(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, supervisor: Supervisor
) -> None:
    """Serve one connection to the control socket."""
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            answer: dict[str, Any]
            try:
                asked: dict[str, Any] = json.loads(line)
                if asked["command"] != "status":
                    supervisor.change(asked["command"], asked["name"], asked.get("role", ""))
                answer = {"processes": [dataclasses.asdict(one) for one in supervisor.status()]}
            except DisagfusionError as error:
                answer = {"error": error.message}
            except (ValueError, KeyError, TypeError) as error:
                answer = {"error": f"not understood: {error}"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
    writer.close()


async def _run(control: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, end.set)
    reader, writer = await asyncio.open_unix_connection(sock=control, limit=1 << 24)
    plan = Plan.from_json(await reader.readline())
    owner = os.pidfd_open(plan.parent)
    if os.getppid() != plan.parent:
        return  # it ended before it could be watched
    loop.add_reader(owner, end.set)
    death.adopt_orphans()
    supervisor = Supervisor(plan)
    loop.add_signal_handler(signal.SIGCHLD, supervisor.reap)
    listener = await _listen(plan.control, supervisor) if plan.control else None
    supervisor.start()
    serving = asyncio.create_task(_serve(reader, writer, supervisor))
    ending = asyncio.create_task(end.wait())
    try:
        await asyncio.wait([serving, ending], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if listener is not None:
            listener.close()
        loop.remove_reader(owner)
        loop.remove_signal_handler(signal.SIGCHLD)
        serving.cancel()
        ending.cancel()
        await supervisor.stop()
        writer.close()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await serving


async def _listen(path: str, supervisor: Supervisor) -> asyncio.Server:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return await asyncio.start_unix_server(
        lambda reader, writer: _control(reader, writer, supervisor), path
    )


def main() -> int:
    """Run the supervisor on the socket that is this process's standard input."""
    control = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    asyncio.run(_run(control))
    return 0


if __name__ == "__main__":
    sys.exit(main())
