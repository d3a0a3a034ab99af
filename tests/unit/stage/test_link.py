"""The link with engines that are processes but compute nothing."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator

import pytest

from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.config import EngineConfig, engine_environment
from disagfusion.stage.launcher import EngineLauncher, EngineProcess, LaunchError, describe_exit
from disagfusion.stage.link import EngineLink
from disagfusion.stage.memory import SharedMemory
from disagfusion.v1 import engine_pb2

CONFIG = EngineConfig(stage=Stage.DIT, engine="a:B", model="m", options=LoadOptions())

PROLOGUE = """
import os, signal, socket, sys, time
from disagfusion.stage.channel import EngineChannel
from disagfusion.v1 import engine_pb2
sock = socket.socket(fileno=int(sys.argv[1]))
channel = EngineChannel(sock)
memory = channel.attach()
"""


class _Process(EngineProcess):
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid

    async def wait(self) -> str:
        return describe_exit(await self.process.wait())

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


class ScriptLauncher(EngineLauncher):
    """Starts a script in the place of an engine."""

    def __init__(self, script: str) -> None:
        self.script = script

    async def launch(self, config: EngineConfig, sock: socket.socket) -> EngineProcess:
        if not self.script:
            raise LaunchError("nothing to start")
        return _Process(
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROLOGUE + self.script, str(sock.fileno()),
                pass_fds=(sock.fileno(),),
            )
        )  # fmt: skip


class Listener:
    def __init__(self) -> None:
        self.pid = 0
        self.messages: asyncio.Queue[engine_pb2.EngineResponse] = asyncio.Queue()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def launched(self, pid: int) -> None:
        self.pid = pid

    def message(self, message: engine_pb2.EngineResponse) -> None:
        self.messages.put_nowait(message)

    def lost(self, reason: str) -> None:
        self.ended.set_result(reason)


@pytest.fixture
async def memory() -> AsyncIterator[SharedMemory]:
    shared = SharedMemory.create(1 << 16)
    yield shared
    shared.close()


def link(script: str, memory: SharedMemory, silence: float = 60.0) -> tuple[EngineLink, Listener]:
    listener = Listener()
    made = EngineLink(ScriptLauncher(script), CONFIG, memory, listener, silence_seconds=silence)
    made.start()
    return made, listener


async def test_both_sides_share_memory_and_messages(memory: SharedMemory) -> None:
    script = """
channel.start()
run = channel.next_run()
memory.view(128, 5)[:] = b"hello"
space = channel.space(run.run_id, 7)
while not channel.canceller(run.run_id)():
    time.sleep(0.001)
channel.send(finished=engine_pb2.RunFinished(run_id=run.run_id, size_bytes=space.offset))
time.sleep(60)
"""
    made, listener = link(script, memory)
    made.send(run=engine_pb2.RunStage(run_id=1))  # there is no engine yet: nothing happens
    while True:
        async with asyncio.timeout(30):
            made.send(run=engine_pb2.RunStage(run_id=7))
            try:
                async with asyncio.timeout(0.2):
                    message = await listener.messages.get()
            except TimeoutError:
                continue
        if message.HasField("need_space"):
            break
    assert bytes(memory.view(128, 5)) == b"hello"
    made.send(space=engine_pb2.GiveSpace(run_id=7, offset=42, size_bytes=7))
    made.send(cancel=engine_pb2.CancelRun(run_id=7))
    while not message.HasField("finished"):
        message = await listener.messages.get()
    assert message.finished.size_bytes == 42
    await made.aclose()
    assert listener.ended.done()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sys.exit(7)", "status 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("sock.sendall(b'\\xff' * 64); time.sleep(60)", "not understood"),
        ("sock.sendall(b'\\0\\0\\0\\x04\\xff\\xff\\xff\\xff'); time.sleep(60)", "not understood"),
        ("sock.close(); time.sleep(60)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "stopped by a signal"),
        ("", "nothing to start"),
    ],
)
async def test_an_engine_that_goes_wrong_is_lost_for_sure(
    memory: SharedMemory, script: str, reason: str
) -> None:
    made, listener = link(script, memory)
    async with asyncio.timeout(60):
        assert reason in await listener.ended
    await made.aclose()


async def test_a_silent_engine_is_killed(memory: SharedMemory) -> None:
    _, listener = link("time.sleep(60)", memory, silence=1.0)
    async with asyncio.timeout(60):
        assert "said nothing" in await listener.ended


async def test_a_beating_engine_is_left_alone(memory: SharedMemory) -> None:
    made, listener = link("channel.start(); time.sleep(60)", memory, silence=5.0)
    for _ in range(2):
        assert (await listener.messages.get()).HasField("heartbeat")
    assert not listener.ended.done()
    await made.aclose()


async def test_an_engine_that_computes_without_a_word_is_left_alone(memory: SharedMemory) -> None:
    # A sum holds the interpreter's lock from its beginning to its end, so there are no beats.
    script = """
channel.start()
for _ in range(3):
    begin, size = time.process_time(), 10**7
    while time.process_time() - begin < 2:
        sum(range(size))
        size *= 2
channel.send(load_failed=engine_pb2.EngineLoadFailed(message="at last"))
time.sleep(60)
"""
    made, listener = link(script, memory, silence=1.0)
    async with asyncio.timeout(60):
        while not (await listener.messages.get()).HasField("load_failed"):
            assert not listener.ended.done()
    await made.aclose()


async def test_an_engine_that_spins_without_a_word_is_killed_in_the_end(
    memory: SharedMemory,
) -> None:
    # Three looks in which a busy machine lets it do nothing would be taken for a hang.
    _, listener = link("sum(range(10**13))", memory, silence=1.5)
    async with asyncio.timeout(60):
        assert "said nothing for 15 s" in await listener.ended


def test_exits_are_described() -> None:
    assert describe_exit(3) == "the engine exited with status 3"
    assert describe_exit(-signal.SIGSEGV) == "the engine was ended by SIGSEGV"
    assert describe_exit(-1000) == "the engine was ended by signal 1000"


def test_an_engine_gets_what_concerns_it() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "1", "DISAGFUSION_API_KEYS": "x", "HF_HOME": "/h"}
    assert engine_environment(environment) == {"CUDA_VISIBLE_DEVICES": "1", "HF_HOME": "/h"}
