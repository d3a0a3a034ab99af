"""An engine that is prepared while another works. Engines are played by the tests."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playedengines import (
    BEAT,
    DECODER,
    DIT,
    ENCODER,
    LOADED,
    Listener,
    Scene,
    alive,
    until,
)
from structlog.testing import capture_logs

from disagfusion.stage.config import EngineConfig
from disagfusion.stage.launcher import EngineLauncher, EngineProcess
from disagfusion.stage.link import EngineLink
from disagfusion.stage.memory import SharedMemory
from disagfusion.v1 import engine_pb2


@pytest.fixture
async def memory() -> AsyncIterator[SharedMemory]:
    shared = SharedMemory.create(1 << 16)
    yield shared
    shared.close()


@asynccontextmanager
async def played(memory: SharedMemory) -> AsyncIterator[Scene]:
    made = Scene(memory)
    try:
        yield made
    finally:
        made.listener.link = None
        for engine in made.hand.engines:
            engine.lingers = False
        await made.link.aclose()
        assert all(engine.killed for engine in made.hand.engines)


@pytest.fixture
async def scene(memory: SharedMemory) -> AsyncIterator[Scene]:
    async with played(memory) as made:
        yield made


async def test_it_has_its_turn_with_all_that_it_has_said(scene: Scene) -> None:
    first = await scene.begin()
    scene.link.prepare(DECODER)
    second = await scene.engine(1)
    second.say(**BEAT)
    second.say(**LOADED)
    second.say(step=engine_pb2.RunStep(run_id=1))
    scene.forget()
    await scene.ping(first)
    scene.link.send(run=engine_pb2.RunStage(run_id=7))
    assert scene.listener.told == ["step101"], "nothing of the second one yet"
    scene.link.replace(DECODER)
    await scene.listener.until(second.pid)
    second.say(**BEAT)
    await scene.listener.until("heartbeat")
    assert scene.listener.told == [
        "step101", "lost: the engine makes way for another stage's",
        second.pid, "loaded", "step1", "heartbeat",
    ]  # fmt: skip
    assert first.killed
    assert not second.killed
    assert second.heard() == []
    scene.link.send(cancel=engine_pb2.CancelRun(run_id=8))
    await scene.ping(second)
    assert second.heard() == ["cancel"]
    assert scene.hand.asked == [DIT, DECODER], "one launch"


async def test_what_is_left_to_load_is_waited_for(scene: Scene) -> None:
    await scene.begin()
    scene.link.prepare(DECODER)
    second = await scene.engine(1)
    scene.forget()
    scene.link.replace(DECODER)
    await scene.listener.until(second.pid)
    assert "loaded" not in scene.listener.told
    second.say(**LOADED)
    await scene.listener.until("loaded")
    assert scene.hand.asked == [DIT, DECODER]


async def test_it_has_its_turn_while_it_is_launched(scene: Scene) -> None:
    # Its process is there after the first one has ended.
    await scene.begin()
    scene.link.prepare(DECODER)
    scene.link.replace(DECODER)
    second = await scene.engine(1)
    await scene.listener.until(second.pid)
    assert scene.hand.asked == [DIT, DECODER]


@pytest.mark.parametrize("failure", ["dies", "does not load", "cannot be launched"])
async def test_one_that_fails_before_its_turn_is_replaced_at_its_turn(
    scene: Scene, failure: str
) -> None:
    first = await scene.begin()
    scene.hand.broken = failure == "cannot be launched"
    with capture_logs() as logs:
        scene.link.prepare(DECODER)
        if failure == "dies":
            (await scene.engine(1)).exit("the engine was ended by SIGKILL")
        elif failure == "does not load":
            failed = engine_pb2.EngineLoadFailed(message="no such file")
            (await scene.engine(1)).say(load_failed=failed)
        await until(lambda: [log for log in logs if log["log_level"] == "warning"])
    (problem,) = [log["problem"] for log in logs if log["log_level"] == "warning"]
    assert problem in ("the engine was ended by SIGKILL", "no such file", "nothing to start")
    scene.hand.broken = False
    before = len(scene.hand.asked)
    scene.forget()
    # Asked again before its turn: it is not tried again and again.
    scene.link.prepare(DECODER)
    await scene.ping(first)
    assert len(scene.hand.asked) == before
    assert scene.listener.told == ["step101"], "the listener hears nothing of it"
    scene.link.replace(DECODER)
    fresh = await scene.engine(len(scene.hand.engines))
    await scene.listener.until(fresh.pid)
    assert fresh.config == DECODER
    assert not fresh.killed
    assert scene.listener.told[-2:] == [
        "lost: the engine makes way for another stage's", fresh.pid,
    ]  # fmt: skip
    assert all(engine.killed for engine in scene.hand.engines if engine is not fresh)


async def test_one_that_dies_at_its_turn_is_lost_like_any_other(scene: Scene) -> None:
    await scene.begin()
    scene.link.prepare(DECODER)
    second = await scene.engine(1)
    second.say(**LOADED)
    scene.listener.link = None
    scene.link.replace(DECODER)
    await scene.listener.until("lost: the engine makes way for another stage's")
    scene.forget()
    # The engine ends after it was taken and before the listener is told.
    scene.link.start()
    assert scene.listener.told == [], "the caller is not told within its own call"
    second.exit("the engine exited with status 3")
    await scene.listener.until("lost: the engine exited with status 3")
    assert scene.listener.told[0] == second.pid
    assert scene.listener.told[-1] == "lost: the engine exited with status 3"
    scene.link.start()
    third = await scene.engine(2)
    await scene.listener.until(third.pid)
    assert third.config == DECODER


async def test_a_change_that_is_taken_back_ends_it(scene: Scene) -> None:
    first = await scene.begin()
    scene.link.prepare(DECODER)
    second = await scene.engine(1)
    scene.forget()
    scene.link.prepare(DIT)
    await until(lambda: second.killed)
    await scene.ping(first)
    assert scene.listener.told == ["step101"]
    assert not first.killed
    # Nothing is left of it when the engine that works is started anew.
    first.exit("crashed")
    third = await scene.engine(2)
    await scene.listener.until(third.pid)
    assert third.config == DIT


async def test_for_a_third_stage_another_is_prepared_when_the_first_has_ended(
    scene: Scene,
) -> None:
    first = await scene.begin()
    scene.link.prepare(DECODER)
    second = await scene.engine(1)
    second.lingers = True
    scene.link.prepare(ENCODER)
    await scene.ping(first)
    assert second.killed
    assert scene.hand.asked == [DIT, DECODER], "there is memory for two"
    scene.link.prepare(DECODER)
    scene.link.prepare(ENCODER)
    await scene.ping(first)
    assert scene.hand.asked == [DIT, DECODER]
    second.exit("killed")
    third = await scene.engine(2)
    assert third.config == ENCODER
    scene.link.replace(ENCODER)
    await scene.listener.until(third.pid)
    assert scene.hand.asked == [DIT, DECODER, ENCODER]


async def test_another_stage_in_the_last_moment_ends_it(scene: Scene) -> None:
    await scene.begin()
    scene.link.prepare(DECODER)
    second = await scene.engine(1)
    scene.link.replace(DECODER)
    scene.link.replace(ENCODER)
    third = await scene.engine(2)
    await scene.listener.until(third.pid)
    assert second.killed
    assert third.config == ENCODER
    assert second.pid not in scene.listener.told


async def test_it_survives_the_engine_that_works(scene: Scene) -> None:
    first = await scene.begin()
    scene.link.prepare(DECODER)
    second = await scene.engine(1)
    first.exit("crashed")
    third = await scene.engine(2)
    await scene.listener.until(third.pid)
    assert third.config == DIT
    assert not second.killed
    scene.link.replace(DECODER)
    await scene.listener.until(second.pid)


async def test_one_that_is_about_to_have_its_turn_is_not_taken_back(scene: Scene) -> None:
    # The worker is told again what it is to be, after it has begun to be that.
    await scene.begin()
    scene.link.prepare(DECODER)
    second = await scene.engine(1)
    scene.link.replace(DECODER)
    scene.link.prepare(DECODER)
    await scene.listener.until(second.pid)
    assert scene.hand.asked == [DIT, DECODER]
    scene.link.prepare(DECODER)
    await scene.ping(second)
    assert scene.hand.asked == [DIT, DECODER]


@pytest.mark.parametrize("blocked", [False, True])
async def test_closing_ends_both(memory: SharedMemory, blocked: bool) -> None:
    async with played(memory) as scene:
        first = await scene.begin()
        scene.hand.blocked = blocked
        scene.link.prepare(DECODER)
        await until(lambda: len(scene.hand.asked) == 2)
        second = None if blocked else await scene.engine(1)
        await scene.link.aclose()
        assert first.killed
        assert second is None or second.killed
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint(
        {"engine", "engine-exit", "engine-watch"}
    )


async def test_withdrawing_twice_is_once(scene: Scene) -> None:
    first = await scene.begin()
    scene.link.withdraw()
    scene.link.prepare(DECODER)
    second = await scene.engine(1)
    scene.link.withdraw()
    scene.link.withdraw()
    await scene.ping(first)
    assert second.killed
    assert not first.killed


class _Real(EngineProcess):
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> str:
        return f"status {await self._process.wait()}"

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()


class RealLauncher(EngineLauncher):
    """Starts processes that beat, but those for decoders say nothing at all."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    async def launch(self, config: EngineConfig, sock: socket.socket) -> EngineProcess:
        silent = config == DECODER
        script = (
            "import socket, sys, time\n"
            "from disagfusion.stage.channel import EngineChannel\n"
            "channel = EngineChannel(socket.socket(fileno=int(sys.argv[1])))\n"
            "channel.attach()\n" + ("" if silent else "channel.start()\n") + "time.sleep(600)\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(sock.fileno()), pass_fds=(sock.fileno(),)
        )
        self.pids.append(process.pid)
        return _Real(process)


async def test_processes_are_watched_before_their_turn_and_none_is_left(
    memory: SharedMemory,
) -> None:
    launcher, listener = RealLauncher(), Listener()
    link = EngineLink(launcher, DIT, memory, listener, silence_seconds=3.0)
    link.start()
    await listener.until("heartbeat")
    with capture_logs() as logs:
        link.prepare(DECODER)
        await until(lambda: [log for log in logs if log["event"] == "next engine lost"])
    (lost,) = [log for log in logs if log["event"] == "next engine lost"]
    assert "said nothing" in lost["problem"]
    assert not alive(launcher.pids[1])
    assert not [what for what in listener.told if str(what).startswith("lost")]
    link.prepare(ENCODER)
    await until(lambda: len(launcher.pids) == 3)
    assert alive(launcher.pids[2])
    await link.aclose()
    assert not [pid for pid in launcher.pids if alive(pid)]
