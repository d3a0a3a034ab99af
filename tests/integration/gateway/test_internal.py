"""What the operator asks a gateway and tells it, over the internal port."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from disagfusion_operator.reconcile.gateways import GrpcGateways
from disagfusion_operator.scaling.gateways import Door
from gatewaykit.certificates import Authority

from disagfusion.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    UnauthenticatedError,
    UnavailableError,
)
from disagfusion.rpc.auth import create_key
from disagfusion.rpc.calls import translated
from disagfusion.rpc.channel import open_channel
from disagfusion.v1 import fleet_pb2
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1.fleet_pb2_grpc import FleetServiceStub

ANYWHERE = "0.0.0.0:0"


async def call(address: str, method: str, request: Any, key: str = "") -> Any:
    target = address.replace("0.0.0.0", "127.0.0.1")
    async with open_channel(target, api_key=key) as channel:
        with translated(target):
            return await getattr(FleetServiceStub(channel), method)(request)


async def test_other_machines_need_a_key(bench: Any, tmp_path: Path) -> None:
    keys = tmp_path / "internal"
    key = create_key(keys, "operator")
    with pytest.raises(FailedPreconditionError, match="DISAGFUSION_INTERNAL_KEYS"):
        await bench.gateway(internal_listen=ANYWHERE)
    gateway = await bench.gateway(internal_listen=ANYWHERE, internal_keys=keys)
    address = gateway.gateway.internal_address
    for wrong in ("", "dfk_guess"):
        for method, request in (
            ("GetFleet", fleet_pb2.GetFleetRequest()),
            ("SetAdmission", fleet_pb2.SetAdmissionRequest(closed=True, reason="x")),
            ("CancelJobs", fleet_pb2.CancelJobsRequest(reason="x")),
        ):
            with pytest.raises(UnauthenticatedError):
                await call(address, method, request, wrong)
    assert (await call(address, "GetFleet", fleet_pb2.GetFleetRequest(), key)).incarnation


async def test_a_gateway_may_be_open_to_all_where_that_is_said(bench: Any) -> None:
    with pytest.raises(FailedPreconditionError, match="DISAGFUSION_API_KEYS"):
        await bench.gateway(listen=ANYWHERE)
    gateway = await bench.gateway(listen=ANYWHERE, open_to_all=True)
    assert gateway.gateway.address.startswith("0.0.0.0:")


async def test_versions_and_unfinished_jobs_are_told(bench: Any) -> None:
    stages, gateway, api = await bench.running(internal_listen="127.0.0.1:0")
    address = gateway.gateway.internal_address
    gate = stages["dit-0"].hold("started")
    first = await api.submit()
    await gate.reached.wait()
    state = await call(address, "GetFleet", fleet_pb2.GetFleetRequest(state_only=True))
    (version,) = {worker.version for worker in state.workers}
    assert version
    assert [(job.job_id, job.stage, job.version) for job in state.jobs] == [
        (first.job_id, pb.STAGE_DIT, version)
    ]
    assert state.unfinished == 1
    assert not state.samples
    gate.open()
    await api.end_of(first.job_id)
    state = await call(address, "GetFleet", fleet_pb2.GetFleetRequest(state_only=True))
    assert (state.unfinished, list(state.jobs)) == (0, [])


async def test_a_gateway_that_is_closed_takes_no_new_jobs(bench: Any) -> None:
    stages, gateway, api = await bench.running(internal_listen="127.0.0.1:0")
    address = gateway.gateway.internal_address
    gate = stages["dit-0"].hold("started")
    first = await api.submit(client_request_id="known")
    await gate.reached.wait()
    closed = fleet_pb2.SetAdmissionRequest(closed=True, reason="the pipeline is being deleted")
    await call(address, "SetAdmission", closed)
    with pytest.raises(FailedPreconditionError, match="the pipeline is being deleted"):
        await api.submit()
    # Whoever repeats a submission asks for nothing new.
    assert (await api.submit(client_request_id="known")).job_id == first.job_id
    gate.open()
    assert (await api.end_of(first.job_id)).state == pb.JOB_STATE_SUCCEEDED
    await call(address, "SetAdmission", fleet_pb2.SetAdmissionRequest())
    again = await api.submit()
    assert (await api.end_of(again.job_id)).state == pb.JOB_STATE_SUCCEEDED
    for method, request in (
        ("SetAdmission", fleet_pb2.SetAdmissionRequest(closed=True)),
        ("CancelJobs", fleet_pb2.CancelJobsRequest()),
    ):
        with pytest.raises(InvalidArgumentError, match="reason"):
            await call(address, method, request)


async def test_all_jobs_can_be_cancelled(bench: Any) -> None:
    stages, gateway, api = await bench.running(internal_listen="127.0.0.1:0")
    address = gateway.gateway.internal_address
    gate = stages["dit-0"].hold("started")
    jobs = [await api.submit() for _ in range(3)]
    await gate.reached.wait()
    answer = await call(address, "CancelJobs", fleet_pb2.CancelJobsRequest(reason="going"))
    assert answer.cancelled == 3
    for job in jobs:
        assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_CANCELLED
    gate.open()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_the_operator_talks_to_a_gateway(bench: Any, tmp_path: Path, encrypted: bool) -> None:
    tls = Authority(tmp_path, "ca").issue("cluster") if encrypted else None
    stages = await bench.stages(tls=tls)
    key = create_key(tmp_path / "internal", "operator")
    certificates = {}
    if tls is not None:
        certificates = {
            "tls_cert": tls.cert,
            "tls_key": tls.key,
            "tls_ca": tls.ca,
            "tls_server_name": tls.server_name,
        }
    gateway = await bench.gateway(
        workers=stages.workers,
        listen="127.0.0.1:0",
        internal_listen="127.0.0.1:0",
        internal_keys=tmp_path / "internal",
        probe_listen="127.0.0.1:0",
        **certificates,
    )
    api = bench.api(address=gateway.gateway.address, tls=tls)
    door = Door(gateway.gateway.internal_address, key, tls)
    gateways = GrpcGateways()
    gate = stages["dit-0"].hold("started")
    await api.submit()
    await gate.reached.wait()
    fleet = await gateways.fleet(door)
    assert fleet.unfinished == 1
    assert {worker.takes_work for worker in fleet.workers} == {True}
    await gateways.admit(door, refuse="it goes")
    with pytest.raises(FailedPreconditionError, match="it goes"):
        await api.submit()
    await gateways.cancel(door, "it goes")
    gate.open()
    async with asyncio.timeout(10):
        while (await gateways.fleet(door)).unfinished:  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.05)
    await gateways.admit(door, refuse="")
    await api.submit()
    for wrong in (Door(door.address, "dfk_guess", tls), Door("127.0.0.1:1", key)):
        with pytest.raises((UnauthenticatedError, UnavailableError)):
            await gateways.fleet(wrong)
