"""When an engine is started again. Pure: the time is passed in."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from disagfusion.stage.actions import EngineInfo


class EngineState(enum.Enum):
    """What the engine's process does."""

    ABSENT = enum.auto()
    """There is none; `restart_at` says when there will be."""
    STARTING = enum.auto()
    """It starts, or loads the model."""
    READY = enum.auto()
    """It takes runs."""
    ENDING = enum.auto()
    """It said that it ends, or is being killed."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How long to wait before the n-th start in a row that fails: `min(maximum, first · 2ⁿ⁻¹)`.

    An engine that has worked is replaced at once. A model that cannot be loaded will hardly load a
    second later, so `load_first` is longer than `crash_first`.

    Attributes:
        crash_first: Seconds, where the engine died.
        load_first: Seconds, where the model cannot be loaded.
        maximum: Seconds at most.
    """

    crash_first: float = 0.2
    load_first: float = 5.0
    maximum: float = 60.0


class EngineLifecycle:
    """Follows one engine after the other.

    Attributes:
        state: What the engine does.
        info: Of the engine that has loaded last.
        pid: Of the engine, 0 where there is none.
        restart_at: When the next one is to be started, where there is none.
        restarts: How many engines were started after the first.
        problem: Why there is no engine that works; empty while it loads for the first time.
    """

    def __init__(self, policy: RestartPolicy, now: float) -> None:
        self._policy = policy
        self._failures = 0
        self._worked = False
        self._load_failed = False
        self._stopped = False
        self._replaced = False
        self.state = EngineState.ABSENT
        self.info = EngineInfo()
        self.pid = 0
        self.restart_at: float | None = now
        self.restarts = -1
        self.problem = ""

    def due(self, now: float) -> bool:
        """Whether an engine is to be started now."""
        return self.restart_at is not None and now >= self.restart_at

    def starting(self) -> None:
        """Note that one is being started."""
        self.state, self.restart_at = EngineState.STARTING, None
        self.restarts += 1
        self._worked = self._load_failed = self._replaced = False

    def loaded(self, info: EngineInfo) -> None:
        """Note that it takes runs."""
        if self._replaced:
            return  # it had this to say before it knew
        self.state, self.info, self.problem = EngineState.READY, info, ""

    def load_failed(self, message: str) -> None:
        """Note that the model cannot be loaded; the process ends."""
        if self._replaced:
            return
        self.state, self.problem, self._load_failed = EngineState.ENDING, message, True

    def worked(self) -> None:
        """Note that it has brought a run to its end: the next one may start at once."""
        self._worked = True
        self._failures = 0

    def ending(self) -> None:
        """Note that it is about to end."""
        self.state = EngineState.ENDING

    def replace(self, now: float) -> None:
        """Note that it is ended to make way for another kind, which starts at once."""
        self._failures = 0
        self.problem = ""
        if self.state is EngineState.ABSENT:
            self.restart_at = None if self._stopped else now
        else:
            self.state, self._replaced = EngineState.ENDING, True

    def lost(self, reason: str, now: float) -> None:
        """Note that the process has ended."""
        self.state, self.pid = EngineState.ABSENT, 0
        if self._worked or self._replaced:
            delay = 0.0
        else:
            policy = self._policy
            first = policy.load_first if self._load_failed else policy.crash_first
            delay = min(policy.maximum, first * 2.0 ** min(self._failures, 32))
            self._failures += 1
        if not (self._load_failed or self._replaced):
            self.problem = reason
        self.restart_at = None if self._stopped else now + delay

    def stop(self) -> None:
        """Start none any more."""
        self.restart_at, self._stopped = None, True
