"""What a front exports: from the machine's state and its actions to metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from disagfusion.stage.actions import StageEnded
from disagfusion.stage.jobs import outcome_of
from disagfusion.stage.machine import Activity, StageMachine
from disagfusion.stage.startup import Step
from disagfusion.telemetry.metrics import CollectorRegistry, Direction, StageMetrics
from disagfusion.telemetry.metrics import TransferOutcome as Outcome
from disagfusion.transport.api import RefusalReason
from disagfusion.transport.slots import SlotState

_DIRECTIONS: tuple[Direction, ...] = ("sent", "received")
_SlotName = Literal["free", "granted", "filling", "filled", "computing"]
_ACTIVITIES: tuple[Activity, ...] = ("busy", "starved", "blocked", "loading")


class StageMeter:
    """Keeps the metrics of a front; it is also the transport's `Observer`.

    Args:
        registry: Where they are registered.
        machine: What is measured.
        pipeline: Label.
        stage: Label.
        pool: Label.
        now: Seconds on the machine's clock.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        machine: StageMachine,
        *,
        pipeline: str,
        stage: str,
        pool: str,
        now: float,
    ) -> None:
        self._machine = machine
        self._activity: Activity = machine.activity
        self._transfers = {direction: machine.transfer(direction) for direction in _DIRECTIONS}
        self._since = now
        self._gauges: dict[str, Callable[[], float]] = {
            "queue": lambda: machine.waiting,
            "held_bytes": lambda: machine.held.used,
            "held_outputs": lambda: len(machine.held),
        }
        self._slot_gauges: dict[_SlotName, Callable[[], float]] = {
            "free": lambda: machine.slots.free,
            "granted": lambda: self._slots(SlotState.ISSUED),
            "filling": lambda: self._slots(SlotState.FILLING),
            "filled": lambda: self._slots(SlotState.FILLED) - self._computing(),
            "computing": self._computing,
        }
        self._bind(StageMetrics(registry, pipeline=pipeline, stage=stage, pool=pool))

    def change_stage(self, stage: str, now: float) -> None:
        """Count what happens from now on for another stage."""
        self.account(now)
        for name in self._gauges:
            getattr(self._metrics, name).set_function(_nothing)
        for slot in self._slot_gauges:
            self._metrics.slots(slot).set_function(_nothing)
        self._bind(self._metrics.of_stage(stage))

    def _bind(self, metrics: StageMetrics) -> None:
        self._metrics = metrics
        self._seconds = {name: metrics.accelerator_seconds(name) for name in _ACTIVITIES}
        for name, measure in self._gauges.items():
            getattr(metrics, name).set_function(measure)
        for slot, measure in self._slot_gauges.items():
            metrics.slots(slot).set_function(measure)

    def account(self, now: float) -> None:
        """Add the time since the last call to what the accelerator did then."""
        elapsed, self._since = now - self._since, now
        self._seconds[self._activity].inc(elapsed)
        for direction, transfer in self._transfers.items():
            if transfer is not None:
                self._metrics.overlap(transfer, direction).inc(elapsed)
            self._transfers[direction] = self._machine.transfer(direction)
        self._activity = self._machine.activity

    def ended(self, ended: StageEnded) -> None:
        """Count an assignment that came to its end."""
        if ended.kind:
            self._metrics.stage_failed(outcome_of(ended.kind))
        else:
            self._metrics.compute_seconds.observe(ended.record.compute_seconds)
        if ended.prompt_cache == "hit":
            self._metrics.prompt_cache("hit")
        elif ended.prompt_cache == "miss":
            self._metrics.prompt_cache("miss")

    def startup(self, step: Step, at: float) -> None:
        """Note when a step of the start took place, in Unix time."""
        self._metrics.startup(step).set(at)

    def restarted(self, reason: str) -> None:
        """Count an engine that is started again."""
        self._metrics.engine_restarted(reason)

    def sent(self, transport: str, outcome: str, nbytes: int, seconds: float) -> None:
        """See `transport.Observer`."""
        if outcome == "delivered":
            self._metrics.transferred(transport, "sent", nbytes=nbytes, seconds=seconds)
        else:
            self._metrics.transfer_failed(transport, "sent", _failure(outcome))

    def received(self, transport: str, outcome: str, nbytes: int, seconds: float) -> None:
        """See `transport.Observer`."""
        if outcome == "delivered":
            self._metrics.transferred(transport, "received", nbytes=nbytes, seconds=seconds)
        else:
            self._metrics.transfer_failed(transport, "received", _failure(outcome))
            if outcome == RefusalReason.CHECKSUM:
                self._metrics.checksum_failed()

    def rejected(self, reason: str) -> None:
        """See `transport.Observer`."""
        self._metrics.transfer_failed("unknown", "received", "refused")

    def quarantined(self, nbytes: int) -> None:
        """See `transport.Observer`; the slots' states show it."""

    def _slots(self, state: SlotState) -> int:
        return self._machine.slots.counts()[state]

    def _computing(self) -> int:
        # The first stage computes from a place in its queue that was never filled.
        return int(self._machine.computing)


def _nothing() -> float:
    return 0.0


def _failure(outcome: str) -> Outcome:
    return "lost" if outcome == "lost" else "refused"
