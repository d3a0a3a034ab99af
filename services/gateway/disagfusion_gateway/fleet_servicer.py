"""The internal API for balancers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from disagfusion.errors import InvalidArgumentError
from disagfusion.v1 import fleet_pb2
from disagfusion.v1.fleet_pb2_grpc import FleetServiceServicer
from disagfusion_gateway.admission import Admission
from disagfusion_gateway.fleet import Fleet

_KEPT = 1000
_DEFAULT = 20


class FleetServicer(FleetServiceServicer):
    """Serves `disagfusion.v1.FleetService`.

    Args:
        fleet: What is known of jobs and workers.
        cancel_all: Cancels all unfinished jobs, for this reason; returns how many.
        admission: Decides whether new jobs are taken.
        clock: Unix seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        cancel_all: Callable[[str], int],
        admission: Admission,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fleet = fleet
        self._cancel_all = cancel_all
        self._admission = admission
        self._clock = clock
        self._decisions: deque[fleet_pb2.FleetDecision] = deque(maxlen=_KEPT)

    async def GetFleet(
        self, request: fleet_pb2.GetFleetRequest, context: Any
    ) -> fleet_pb2.GetFleetResponse:
        """Return the fleet as it is now."""
        return self._fleet.describe(request, self._clock())

    async def RecordDecision(
        self, request: fleet_pb2.RecordDecisionRequest, context: Any
    ) -> fleet_pb2.RecordDecisionResponse:
        """Keep a decision."""
        if not request.decision.reason:
            raise InvalidArgumentError("decision.reason", "is empty", expected="a reason's name")
        self._decisions.appendleft(request.decision)
        return fleet_pb2.RecordDecisionResponse()

    async def SetAdmission(
        self, request: fleet_pb2.SetAdmissionRequest, context: Any
    ) -> fleet_pb2.SetAdmissionResponse:
        """Take no new jobs, or take them again."""
        if request.closed and not request.reason:
            raise InvalidArgumentError("reason", "is empty", expected="why no jobs are taken")
        self._admission.refusal = request.reason if request.closed else ""
        return fleet_pb2.SetAdmissionResponse()

    async def CancelJobs(
        self, request: fleet_pb2.CancelJobsRequest, context: Any
    ) -> fleet_pb2.CancelJobsResponse:
        """Cancel all unfinished jobs."""
        if not request.reason:
            raise InvalidArgumentError("reason", "is empty", expected="why jobs are cancelled")
        return fleet_pb2.CancelJobsResponse(cancelled=self._cancel_all(request.reason))

    async def ListDecisions(
        self, request: fleet_pb2.ListDecisionsRequest, context: Any
    ) -> fleet_pb2.ListDecisionsResponse:
        """Return the last decisions, newest first."""
        if not 0 <= request.limit <= _KEPT:
            raise InvalidArgumentError("limit", f"is {request.limit}", expected=f"1 to {_KEPT}")
        found = list(self._decisions)[: request.limit or _DEFAULT]
        return fleet_pb2.ListDecisionsResponse(decisions=found)
