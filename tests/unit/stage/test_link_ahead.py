"""An engine that is prepared while another works. Engines are played by the tests."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

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
