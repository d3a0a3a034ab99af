from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from prometheus_client import CollectorRegistry

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError, UnauthenticatedError
from disagfusion.rpc.auth import AuthInterceptor, KeyFile, create_key, current_tenant
from disagfusion.rpc.channel import api_key_metadata, open_channel
from disagfusion.rpc.errors import from_rpc_error
from disagfusion.rpc.metering import MeteringInterceptor
from disagfusion.rpc.server import RpcServer
from disagfusion.telemetry.metrics import GrpcMetrics
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1.generation_pb2_grpc import (
    GenerationServiceServicer,
    GenerationServiceStub,
    add_GenerationServiceServicer_to_server,
)

SERVICE = "disagfusion.v1.GenerationService"


class Servicer(GenerationServiceServicer):
    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=pb.Job(job_id=request.job_id, tenant=current_tenant()))

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Any
    ) -> AsyncIterator[pb.WatchJobResponse]:
        yield pb.WatchJobResponse(event=pb.JobEvent(message=current_tenant()))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RpcServer]:
    server = RpcServer(f"unix:{tmp_path}/s", [SERVICE])
    add_GenerationServiceServicer_to_server(Servicer(), server.grpc)
    await server.start()
    yield server
    await server.stop(0)


async def test_port_zero_takes_a_free_port_and_a_second_server_is_refused() -> None:
    first = RpcServer("127.0.0.1:0", [SERVICE])
    address = await first.start()
    assert int(address.rpartition(":")[2]) > 0
    second = RpcServer(address, [SERVICE])
    with pytest.raises(FailedPreconditionError, match=f"{address} is in use") as caught:
        await second.start()
    assert caught.value.reason == "ADDRESS_IN_USE"
    assert "\n" not in str(caught.value)
    await second.stop(0)
    await first.stop(0)


async def test_a_socket_in_use_is_not_taken_over(server: RpcServer) -> None:
    second = RpcServer(server.address, [SERVICE])
    with pytest.raises(FailedPreconditionError, match="in use"):
        await second.start()
    await second.stop(0)
    async with open_channel(server.address) as channel:
        await GenerationServiceStub(channel).GetJob(pb.GetJobRequest())


async def test_a_socket_that_was_left_over_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    server = RpcServer(f"unix:{path}", [SERVICE])
    await server.start()
    assert os.stat(path).st_mode & 0o777 == 0o600
    await server.stop(0)


async def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    server = RpcServer(f"unix:{path}", [SERVICE])
    with pytest.raises(FailedPreconditionError, match="not a socket"):
        await server.start()
    await server.stop(0)
    assert path.read_text() == "x"


@pytest.mark.parametrize(
    "listen", ["", "x", ":1", "h:", "h:x", "h:65536", "h:-1", "h:²", "unix:", "unix:a",
               "unix:/" + "a" * 120],
)  # fmt: skip
def test_addresses_that_are_refused(listen: str) -> None:
    with pytest.raises(InvalidArgumentError, match="listen"):
        RpcServer(listen, [SERVICE])


async def test_addresses_that_are_not_ours() -> None:
    server = RpcServer("203.0.113.1:50", [SERVICE])
    with pytest.raises(FailedPreconditionError, match="cannot listen"):
        await server.start()
    await server.stop(0)


async def test_health_follows_set_serving(server: RpcServer) -> None:
    async with open_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for serving, status in ((False, 2), (True, 1), (False, 2)):
            await server.set_serving(serving)
            for service in ("", SERVICE):
                request = health_pb2.HealthCheckRequest(service=service)
                assert (await stub.Check(request)).status == status


async def test_keys_and_tenants(tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys", "acme")
    auth = AuthInterceptor(KeyFile(tmp_path / "keys"))
    server = RpcServer(f"unix:{tmp_path}/s", [SERVICE], interceptors=[auth])
    add_GenerationServiceServicer_to_server(Servicer(), server.grpc)
    await server.start()
    async with open_channel(server.address, api_key=key) as channel:
        stub = GenerationServiceStub(channel)
        assert (await stub.GetJob(pb.GetJobRequest())).job.tenant == "acme"
        events = [response.event async for response in stub.WatchJob(pb.WatchJobRequest())]
        assert [event.message for event in events] == ["acme"]
    async with open_channel(server.address) as channel:
        stub = GenerationServiceStub(channel)
        # Health is open to probes.
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        for metadata, reason in (
            ((), "API_KEY_MISSING"),
            (api_key_metadata("wrong"), "API_KEY_UNKNOWN"),
            ((("authorization", key),), "API_KEY_UNKNOWN"),
            ((("authorization", f"Basic {key}"),), "API_KEY_UNKNOWN"),
        ):
            for call in (
                stub.GetJob(pb.GetJobRequest(), metadata=metadata),
                stub.WatchJob(pb.WatchJobRequest(), metadata=metadata).read(),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    await call
                error = from_rpc_error(caught.value)
                assert isinstance(error, UnauthenticatedError)
                assert error.reason == reason
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        with pytest.raises(grpc.RpcError) as caught:
            await channel.stream_stream(method)(iter([b""])).read()
        assert isinstance(from_rpc_error(caught.value), UnauthenticatedError)
    await server.stop(0)


async def test_reflection_lists_the_services(server: RpcServer) -> None:
    import asyncio

    def listed() -> set[str]:
        with grpc.insecure_channel(server.address) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    services = await asyncio.to_thread(listed)
    assert {SERVICE, "grpc.health.v1.Health"} <= services


async def test_bytes_are_counted(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metering = MeteringInterceptor(GrpcMetrics(registry))
    server = RpcServer(f"unix:{tmp_path}/s", [SERVICE], interceptors=[metering])
    add_GenerationServiceServicer_to_server(Servicer(), server.grpc)
    await server.start()
    request = pb.GetJobRequest(job_id="x" * 1000)
    async with open_channel(server.address) as channel:
        response = await GenerationServiceStub(channel).GetJob(request)
    await server.stop(0)
    name, method = "disagfusion_grpc_message_bytes_total", f"/{SERVICE}/GetJob"
    for direction, message in (("received", request), ("sent", response)):
        labels = {"method": method, "direction": direction}
        assert registry.get_sample_value(name, labels) == message.ByteSize()


async def test_random_bytes_disturb_nobody(server: RpcServer) -> None:
    path = server.address.removeprefix("unix:")
    for size in (1, 24, 1000, 100_000):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(path)
            raw.settimeout(5)
            try:
                raw.sendall(os.urandom(size))
                raw.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # the server has hung up already
    async with open_channel(server.address) as channel:
        job = (await GenerationServiceStub(channel).GetJob(pb.GetJobRequest(job_id="j"))).job
    assert job.job_id == "j"


async def health(address: str, service: str) -> Any:
    async with open_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return (await health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)).status


async def test_alive_is_not_ready(server: RpcServer) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
    for ready in (False, True, False):
        await server.set_serving(ready)
        assert await health(server.address, "liveness") == serving
        for service in ("readiness", "", SERVICE):
            assert await health(server.address, service) == (serving if ready else not_serving)


async def test_a_second_address_answers_probes_and_nothing_else() -> None:
    server = RpcServer("127.0.0.1:0", [SERVICE], probe_listen="127.0.0.1:0")
    add_GenerationServiceServicer_to_server(Servicer(), server.grpc)
    await server.start()
    try:
        assert server.probe_address not in ("127.0.0.1:0", server.address)
        serving = health_pb2.HealthCheckResponse.SERVING
        assert await health(server.probe_address, "liveness") == serving
        await server.set_serving(True)
        assert await health(server.probe_address, "readiness") == serving
        async with open_channel(server.probe_address) as channel:
            with pytest.raises(grpc.RpcError) as error:
                await GenerationServiceStub(channel).GetJob(pb.GetJobRequest(), timeout=10)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    finally:
        await server.stop(0)


async def test_where_probes_cannot_be_answered_is_said() -> None:
    with pytest.raises(InvalidArgumentError, match="probe_listen"):
        RpcServer("127.0.0.1:0", [SERVICE], probe_listen="nowhere")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = RpcServer("127.0.0.1:0", [SERVICE], probe_listen=address)
        with pytest.raises(FailedPreconditionError, match=f"{address} is in use"):
            await server.start()
        await server.stop(0)
