"""What a front exports: from the machine's state and its actions to metrics."""

from __future__ import annotations

from disagfusion.stage.actions import StageEnded
from disagfusion.stage.jobs import outcome_of
from disagfusion.stage.machine import Activity, StageMachine
from disagfusion.telemetry.metrics import CollectorRegistry, Direction, StageMetrics
from disagfusion.telemetry.metrics import TransferOutcome as Outcome
from disagfusion.transport.api import RefusalReason
from disagfusion.transport.slots import SlotState

_DIRECTIONS: tuple[Direction, ...] = ("sent", "received")
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
        self._metrics = StageMetrics(registry, pipeline=pipeline, stage=stage, pool=pool)
        self._activity: Activity = machine.activity
        self._transfers = {direction: machine.transfer(direction) for direction in _DIRECTIONS}
        self._since = now
        self._seconds = {name: self._metrics.accelerator_seconds(name) for name in _ACTIVITIES}
        self._metrics.queue.set_function(lambda: machine.waiting)
        self._metrics.held_bytes.set_function(lambda: machine.held.used)
        self._metrics.held_outputs.set_function(lambda: len(machine.held))
        slots = self._metrics.slots
        slots("free").set_function(lambda: machine.slots.free)
        slots("granted").set_function(lambda: self._slots(SlotState.ISSUED))
        slots("filling").set_function(lambda: self._slots(SlotState.FILLING))
        slots("filled").set_function(lambda: self._slots(SlotState.FILLED) - self._computing())
        slots("computing").set_function(self._computing)

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


def _failure(outcome: str) -> Outcome:
    return "lost" if outcome == "lost" else "refused"
