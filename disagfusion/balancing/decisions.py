"""Where decisions are written down: the log, a file, the gateway, metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from disagfusion.errors import DisagfusionError
from disagfusion.rpc.calls import translated
from disagfusion.rpc.channel import open_channel
from disagfusion.scheduling.decision import Decision, Place, Reason
from disagfusion.telemetry.logging import get_logger
from disagfusion.telemetry.metrics import BalancerMetrics
from disagfusion.v1 import fleet_pb2
from disagfusion.v1.fleet_pb2_grpc import FleetServiceStub

LIMIT_BYTES = 16 * 1024 * 1024

_log = get_logger(__name__)


class Decisions:
    """Writes down every decision.

    Args:
        file: One JSON object per line; at the limit it becomes FILE.1, in the place of an older
            one.
        address: The gateway's internal address.
        balancer: Name of the rule.
        metrics: Counts by reason.
        patience: Seconds that the gateway may take.
        limit_bytes: Size at which the file is put aside.
    """

    def __init__(
        self,
        file: Path,
        address: str,
        balancer: str,
        metrics: BalancerMetrics,
        *,
        patience: float,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self._file = file
        self._address = address
        self._balancer = balancer
        self._metrics = metrics
        self._patience = patience
        self._limit = limit_bytes
        self._last: Reason | None = None

    async def record(self, decision: Decision, time: float) -> None:
        """Write a decision down.

        Args:
            decision: The decision.
            time: Unix seconds.
        """
        self._metrics.decided(decision.reason.name.lower())
        news = bool(decision.moves) or decision.reason is not self._last
        self._last = decision.reason
        entry = as_dict(decision, time, self._balancer)
        (_log.info if news else _log.debug)("decision", **entry)
        self._write(json.dumps(entry))
        try:
            async with open_channel(self._address) as channel:
                with translated(self._address):
                    request = fleet_pb2.RecordDecisionRequest(
                        decision=as_message(decision, time, self._balancer)
                    )
                    await FleetServiceStub(channel).RecordDecision(request, timeout=self._patience)
        except DisagfusionError as error:
            _log.debug("the gateway was not told", problem=error.message)

    def _write(self, line: str) -> None:
        try:
            if self._file.exists() and self._file.stat().st_size >= self._limit:
                self._file.replace(self._file.with_name(f"{self._file.name}.1"))
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            # A full disk must not keep the system from being balanced.
            _log.warning("decision not written", file=str(self._file), problem=error.strerror)


def as_dict(decision: Decision, time: float, balancer: str) -> dict[str, Any]:
    """Return a decision as a JSON object."""
    return {
        "time": round(time, 3),
        "at": round(decision.at, 3),
        "balancer": balancer,
        "reason": decision.reason.name,
        "message": decision.message or decision.reason.value,
        "moves": [
            {
                "from": _pair(move.source),
                "to": _pair(move.target),
                "count": move.count,
                **({"cancel": True} if move.cancel else {}),
            }
            for move in decision.moves
        ],
        **({"details": dict(decision.details)} if decision.details else {}),
        **({"notes": list(decision.notes)} if decision.notes else {}),
    }


def as_message(decision: Decision, time: float, balancer: str) -> fleet_pb2.FleetDecision:
    """Return a decision as the gateway is told it."""
    message = fleet_pb2.FleetDecision(
        reason=decision.reason.name,
        message=decision.message or decision.reason.value,
        details=dict(decision.details),
        notes=decision.notes,
        balancer=balancer,
    )
    message.time.FromNanoseconds(round(time * 1e9))
    for move in decision.moves:
        source, target = move.source, move.target
        message.moves.add(
            from_stage=source.stage if source else "",
            from_pool=source.pool if source else "",
            to_stage=target.stage if target else "",
            to_pool=target.pool if target else "",
            count=move.count,
            cancel=move.cancel,
        )
    return message


def _pair(place: Place | None) -> list[str] | None:
    return None if place is None else [place.stage, place.pool]
