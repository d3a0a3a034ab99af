"""The front's end of the socket pair, and the engines behind it: one at work, one ahead of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from disagfusion.stage.config import EngineConfig
from disagfusion.stage.engine_life import EngineLife, EngineListener
from disagfusion.stage.framing import encode
from disagfusion.stage.launcher import EngineLauncher
from disagfusion.stage.memory import SharedMemory
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import engine_pb2

__all__ = ["EngineLink", "EngineListener"]

_REPLACED = "the engine makes way for another stage's"
_WITHDRAWN = "the engine is not wanted any more"

_log = get_logger(__name__)


class _Ahead:
    """An engine that is prepared: keeps what it says until its turn.

    Args:
        config: What it is told.
        begin: Begins a life that tells a listener what happens.

    Attributes:
        life: Its process.
        problem: Why it cannot have its turn; empty if it can.
        withdrawn: Whether it is ended because nobody wants it any more.
    """

    def __init__(
        self, config: EngineConfig, begin: Callable[[EngineConfig, EngineListener], EngineLife]
    ) -> None:
        self.problem = ""
        self.withdrawn = False
        self._log = _log.bind(next_stage=config.stage.value)
        self._pid = 0
        self._said: list[engine_pb2.EngineResponse] = []
        self._lost: str | None = None
        self.life = begin(config, self)

    def launched(self, pid: int) -> None:
        """See `EngineListener`."""
        self._pid = pid
        self._log.info("next engine started", engine_pid=pid)

    def message(self, message: engine_pb2.EngineResponse) -> None:
        """See `EngineListener`."""
        match message.WhichOneof("message"):
            case "heartbeat":
                return
            case "loaded":
                seconds = message.loaded.load_seconds
                self._log.info("next engine loaded", engine_pid=self._pid, seconds=seconds)
            case "load_failed":
                self.problem = message.load_failed.message
                self._log.warning("next engine not loaded", problem=self.problem)
        self._said.append(message)

    def lost(self, reason: str) -> None:
        """See `EngineListener`."""
        self._lost = reason
        if not self.withdrawn and not self.problem:
            self._log.warning("next engine lost", problem=reason)
        self.problem = self.problem or reason

    def hand_over(self, listener: EngineListener) -> None:
        """Tell a listener all that has happened, in order; it hears the rest itself."""
        self.life.listener = listener
        if self._pid:
            listener.launched(self._pid)
        for message in self._said:
            listener.message(message)
        if self._lost is not None:
            listener.lost(self._lost)


class EngineLink:
    """One engine after the other; the next one may be prepared while one works.

    Args:
        launcher: Starts them.
        config: What they are told.
        memory: What they compute in.
        listener: Is told what happens to the one whose turn it is.
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
        self._life: EngineLife | None = None
        self._ahead: _Ahead | None = None
        # All that are not over: one that is not wanted any more may take a while to end.
        self._lives: set[EngineLife] = set()
        self._closed = False

    def start(self) -> None:
        """Begin to start an engine; `EngineListener.lost` follows sooner or later.

        One that was prepared is taken, unless it has failed. What it has said until now the
        listener is told after this call.
        """
        assert self._life is None or self._life.ended
        ahead = self._ahead
        if ahead is not None and ahead.life.config == self._config:
            self._ahead = None
            if not ahead.problem:
                self._life = ahead.life
                asyncio.get_running_loop().call_soon(self._promote, ahead)
                return
            self._withdraw(ahead)
        self._life = self._begin(self._config, self._listener)

    def prepare(self, config: EngineConfig) -> None:
        """Have an engine of another kind load beside the one that works, until `replace`.

        It begins when one that was prepared for something else has ended. One that fails is not
        tried again before its turn.

        Args:
            config: What it is told. With that of the present engines none is prepared any more,
                unless it is about to have its turn.
        """
        if self._ahead is not None:
            if self._ahead.life.config == config:
                return
            self.withdraw()
        if config != self._config:
            self._ahead = _Ahead(config, self._begin)

    def withdraw(self) -> None:
        """Let the engine that is prepared, if any, end."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self._withdraw(ahead)

    def replace(self, config: EngineConfig) -> None:
        """Let the engine that is there, if any, end, and start another kind from now on.

        Args:
            config: What engines are told from now on.
        """
        self._config = config
        if self._ahead is not None and self._ahead.life.config != config:
            self.withdraw()
        if self._life is not None:
            self._life.end(_REPLACED)

    def send(self, **message: object) -> None:
        """Say something to the engine; nothing happens where there is none."""
        if self._life is not None:
            self._life.send(encode(engine_pb2.EngineRequest(**message)))  # type: ignore[arg-type]

    async def aclose(self) -> None:
        """End all engines."""
        self._closed = True
        await asyncio.gather(*(life.aclose() for life in self._lives))

    def _promote(self, ahead: _Ahead) -> None:
        if not self._closed:
            ahead.hand_over(self._listener)

    def _withdraw(self, ahead: _Ahead) -> None:
        ahead.withdrawn = True
        ahead.life.end(_WITHDRAWN)

    def _begin(self, config: EngineConfig, listener: EngineListener) -> EngineLife:
        life = EngineLife(
            self._launcher,
            config,
            self._memory,
            listener,
            silence_seconds=self._silence,
            # There is memory for two at most.
            after=[one for one in self._lives if one.leaving and not one.ended],
            on_end=self._lives.discard,
        )
        self._lives.add(life)
        return life
