"""The fork server with an engine that does not compute; the protocol is the launcher's."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.launcher import ForkServerLauncher, LaunchError

from .conftest import alive, eventually

SERVER = """
import os, sys, time
from disagfusion.stage import engine

def main(sock, config):
    assert config["model"] == "m", config
    sock.sendall(b"%d %d" % (os.getpid(), len(os.listdir("/proc/self/fd"))))
    sys.stdout.flush()
    order = sock.recv(100)
    if order == b"raise":
        raise ValueError("the engine is wrong")
    if order == b"exit":
        sys.exit(7)
    if order == b"deaf":
        time.sleep(1000)
    return 5

engine.preload = lambda: None
engine.main = main
from disagfusion.local import forkserver
forkserver.main()
"""

CONFIG = EngineConfig(stage=Stage.DIT, engine="a:B", model="m", options=LoadOptions())


class Server:
    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "f.sock")
        self.ready = directory / "ready.json"
        environment = {
            **os.environ,
            "DISAGFUSION_LISTEN": self.path,
            "DISAGFUSION_READY_FILE": str(self.ready),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], env=environment, stderr=subprocess.PIPE
        )
        eventually(self.ready.exists)

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.close()


async def launch(server: Server):  # type: ignore[no-untyped-def]
    ours, theirs = socket.socketpair()
    engine = await ForkServerLauncher(server.path).launch(CONFIG, theirs)
    theirs.close()
    ours.settimeout(20)
    pid, descriptors = ours.recv(100).split()
    assert int(pid) == engine.pid
    return ours, engine, int(descriptors)


@pytest.mark.parametrize(
    ("order", "ending"),
    [
        (b"return", "exited with status 5"),
        (b"exit", "exited with status 7"),
        (b"raise", "exited with status 1"),
    ],
)
async def test_how_an_engine_ends_is_told(server: Server, order: bytes, ending: str) -> None:
    ours, engine, _ = await launch(server)
    assert server.children() == [engine.pid]
    ours.sendall(order)
    assert ending in await engine.wait()
    ours.close()
    assert server.children() == []


async def test_a_killed_engine_is_told(server: Server) -> None:
    ours, engine, _ = await launch(server)
    engine.kill()
    assert "SIGKILL" in await engine.wait()
    ours.close()


async def test_an_engine_ends_when_its_front_does(server: Server) -> None:
    ours, engine, _ = await launch(server)
    ours.sendall(b"deaf")
    engine._writer.close()
    await asyncio.to_thread(eventually, lambda: server.children() == [])
    os.close(engine._descriptor)
    ours.close()


async def test_engines_end_with_the_fork_server(server: Server) -> None:
    first, one, _ = await launch(server)
    second, two, _ = await launch(server)
    first.sendall(b"deaf")
    server.process.kill()
    for engine in (one, two):
        assert "fork server" in await engine.wait()
        assert not alive(engine.pid)
    first.close()
    second.close()


async def test_engines_have_only_what_is_theirs(server: Server) -> None:
    running = [await launch(server) for _ in range(5)]
    assert len({descriptors for _, _, descriptors in running}) == 1
    for ours, engine, _ in running:
        ours.close()
        await engine.wait()


@pytest.mark.parametrize("garbage", [b"not json\n", b"\xff\x00\n", b"{}\n", b"x" * (1 << 21)])
async def test_garbage_does_not_reach_an_engine(server: Server, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(server.path)
        try:
            connection.sendall(garbage)
            assert connection.recv(100) == b""
        except ConnectionError:
            pass  # it hung up before it had everything
    assert server.children() == []
    ours, engine, _ = await launch(server)
    ours.close()
    await engine.wait()


async def test_a_hundred_engines_leave_nothing(server: Server) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    before = descriptors()
    for _ in range(100):
        ours, engine, _ = await launch(server)
        ours.sendall(b"return")
        await engine.wait()
        ours.close()
    await asyncio.to_thread(eventually, lambda: descriptors() == before)
    assert server.children() == []


async def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(LaunchError, match="is not there"):
        await ForkServerLauncher(str(tmp_path / "none")).launch(CONFIG, theirs)


def test_it_ends_when_asked(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == -signal.SIGTERM
