"""What a running system says of itself on its internal address."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from disagfusion.v1 import fleet_pb2

FleetAddress = Annotated[
    str,
    typer.Option(
        "--fleet", envvar="DISAGFUSION_FLEET", metavar="ADDRESS",
        help="The gateway's internal address: host:port or unix:/path.",
    ),
]  # fmt: skip
LOST = "lost"
"""The state of workers that the gateway has no contact with and that did not take their leave."""

_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """A running system at one moment.

    Attributes:
        response: What the gateway said.
        decisions: The balancer's last ones, newest first.
    """

    response: fleet_pb2.GetFleetResponse
    decisions: list[fleet_pb2.FleetDecision] = field(default_factory=list)

    @property
    def stages(self) -> list[str]:
        """Names of all stages, those that no worker has included, in the pipeline's order."""
        from disagfusion.v1 import generation_pb2

        return [stage_name(number) for number in sorted(generation_pb2.Stage.values()) if number]

    def workers(self) -> Counter[tuple[str, str, str]]:
        """Return how many workers there are by stage, pool and state; some are `lost`."""
        found = Counter(
            (stage_name(stage), worker.pool, state_name(worker.state))
            for worker in self.response.workers
            for stage in worker.stages
        )
        for worker in self.response.lost:
            found.update((stage_name(stage), worker.pool, LOST) for stage in worker.stages)
        return found

    def jobs(self) -> tuple[Counter[str], Counter[str]]:
        """Return how many jobs wait for each stage, and how many it computes."""
        waiting: Counter[str] = Counter()
        running: Counter[str] = Counter()
        for job in self.response.jobs:
            (running if job.worker else waiting)[stage_name(job.stage)] += 1
        return waiting, running


def stage_name(number: int) -> str:
    """Return a stage's name."""
    from disagfusion.v1 import generation_pb2

    return generation_pb2.Stage.Name(number).removeprefix("STAGE_").lower()  # type: ignore[arg-type]


def state_name(number: int) -> str:
    """Return the name of a worker's state."""
    from disagfusion.v1 import stage_pb2

    return stage_pb2.WorkerState.Name(number).removeprefix("WORKER_STATE_").lower()  # type: ignore[arg-type]


def ask(address: str, decisions: int) -> Fleet:
    """Ask a gateway.

    Raises:
        DisagfusionError: It does not answer.
    """
    return asyncio.run(_ask(address, decisions))


async def _ask(address: str, decisions: int) -> Fleet:
    from disagfusion.rpc.calls import translated
    from disagfusion.rpc.channel import open_channel
    from disagfusion.v1 import fleet_pb2
    from disagfusion.v1.fleet_pb2_grpc import FleetServiceStub

    async with open_channel(address) as channel:
        stub = FleetServiceStub(channel)
        with translated(address):
            response = await stub.GetFleet(fleet_pb2.GetFleetRequest(), timeout=_PATIENCE)
            listed = await stub.ListDecisions(
                fleet_pb2.ListDecisionsRequest(limit=decisions), timeout=_PATIENCE
            )
    return Fleet(response, list(listed.decisions))
