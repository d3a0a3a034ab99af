"""What the operator's balancer learns from a gateway, and tells it, over the internal port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disagfusion_operator.scaling.gateways import (
    Correspondent,
    Door,
    GrpcGateways,
    mix_of,
    samples_of,
)

from disagfusion.rpc.auth import create_key
from disagfusion.rpc.channel import open_channel
from disagfusion.v1 import fleet_pb2
from disagfusion.v1.fleet_pb2_grpc import FleetServiceStub


async def test_samples_shapes_and_decisions_go_through_the_internal_port(
    bench: Any, tmp_path: Path
) -> None:
    key = create_key(tmp_path / "internal", "operator")
    stages, gateway, api = await bench.running(
        internal_listen="127.0.0.1:0", internal_keys=tmp_path / "internal"
    )
    address = gateway.gateway.internal_address
    door = Door(address, key)
    asks = Correspondent(GrpcGateways())
    gate = stages["dit-0"].hold("started")
    job = await api.submit()
    await gate.reached.wait()
    (first,) = await asks.ask([door], 5.0)
    assert [one.job_id for one in first.jobs] == [job.job_id]
    assert sum(shape.weight for shape in mix_of([first])) >= 1
    gate.open()
    await api.end_of(job.job_id)
    (second,) = await asks.ask([door], 5.0)
    samples = [*samples_of(first, 100.0, 1.0), *samples_of(second, 100.0, 1.0)]
    # Each stage is told once, whenever it is asked about.
    assert sorted(sample.stage for sample, _ in samples) == ["decoder", "dit", "encoder"]
    assert all(0.0 <= 100.0 - sample.at < 60.0 for sample, _ in samples)
    (third,) = await asks.ask([door], 5.0)
    assert not third.samples

    decision = fleet_pb2.FleetDecision(reason="REBALANCE", message="why", balancer="hybrid")
    nobody = Door("127.0.0.1:1", key)
    await asks.tell([door, nobody, Door(address, "dfk_wrong")], decision, 5.0)
    async with open_channel(address, api_key=key) as channel:
        kept = await FleetServiceStub(channel).ListDecisions(fleet_pb2.ListDecisionsRequest())
    assert [(one.reason, one.message) for one in kept.decisions] == [("REBALANCE", "why")]
    assert await asks.ask([nobody, Door(address, "dfk_wrong")], 5.0) == []
