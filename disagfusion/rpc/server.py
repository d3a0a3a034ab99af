"""gRPC servers with health and reflection."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from disagfusion.errors import FailedPreconditionError
from disagfusion.rpc.addresses import check_address, is_unix
from disagfusion.rpc.channel import MAX_MESSAGE_BYTES
from disagfusion.rpc.errors import ErrorInterceptor
from disagfusion.rpc.tls import TlsSettings, server_credentials

LIVENESS = "liveness"
"""The service name of `grpc.health.v1` that is SERVING while the process answers at all."""
READINESS = "readiness"
"""The one that is SERVING while calls are welcome; so are "" and the full name of each service."""

_Status = health_pb2.HealthCheckResponse.ServingStatus


class RpcServer:
    """A gRPC server: create, register servicers at `grpc`, `start`, `stop`.

    It speaks `grpc.health.v1`, NOT_SERVING until `set_serving(True)` but for `LIVENESS`, and
    reflection. `ErrorInterceptor` is always there, outside of the given interceptors.

    Args:
        listen: `host:port`, where port 0 takes a free one, or `unix:/path`.
        services: Full names of the services, such as "disagfusion.v1.StageService".
        tls: For mutual TLS.
        interceptors: Run in this order.
        max_message_bytes: Of one message in either direction.
        probe_listen: A second address, which answers `grpc.health.v1` only and never speaks TLS,
            for who asks without a certificate, as Kubernetes' probes do; empty for none.

    Attributes:
        grpc: Where servicers are registered: `add_XServicer_to_server(servicer, server.grpc)`.
        address: Where it listens, with the port that was taken; as given before `start`.
        probe_address: The same of the second address.

    Raises:
        InvalidArgumentError: An address or a TLS file is wrong.
    """

    def __init__(
        self,
        listen: str,
        services: Sequence[str],
        *,
        tls: TlsSettings | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        probe_listen: str = "",
    ) -> None:
        check_address(listen)
        if probe_listen:
            check_address(probe_listen, "probe_listen")
        self.address = listen
        self.probe_address = probe_listen
        self._credentials = server_credentials(tls) if tls else None
        self._services = tuple(services)
        self.grpc: grpc.aio.Server = grpc.aio.server(
            interceptors=(ErrorInterceptor(), *interceptors),
            options=(
                # Two servers on one port would share its connections at random.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.http2.max_pings_without_data", 0),
            ),
        )
        self._health = cast(Any, health).aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection(
            (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME), self.grpc
        )
        self._probes: grpc.aio.Server | None = None
        if probe_listen:
            self._probes = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probes)

    async def start(self) -> str:
        """Listen; return the address.

        Raises:
            FailedPreconditionError: The address is in use or not this machine's (`ADDRESS_IN_USE`,
                `ADDRESS_UNUSABLE`).
        """
        await self._health.set(LIVENESS, _Status.SERVING)
        await self.set_serving(False)
        self.address = _bind(self.grpc, self.address, self._credentials)
        if self._probes is not None:
            self.probe_address = _bind(self._probes, self.probe_address, None)
            await self._probes.start()
        await self.grpc.start()
        return self.address

    async def set_serving(self, serving: bool) -> None:
        """Say over `grpc.health.v1` whether calls are welcome, for the server and each service."""
        status = _Status.SERVING if serving else _Status.NOT_SERVING
        for service in ("", READINESS, *self._services):
            await self._health.set(service, status)

    async def stop(self, grace: float = 5.0) -> None:
        """Take no new calls, let those that run go on for `grace` seconds, then end them."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(grace)
        if self._probes is not None:
            await self._probes.stop(0)


def _bind(server: grpc.aio.Server, address: str, credentials: Any) -> str:
    """Have a server listen; return the address with the port that was taken."""
    _check_free(address)
    try:
        if credentials:
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _unusable(address, "cannot be listened on") from error
    if is_unix(address):
        os.chmod(address.removeprefix("unix:"), 0o600)
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def _check_free(address: str) -> None:
    # gRPC says no more than "failed to bind", and takes over a unix socket that is in use.
    if is_unix(address):
        _check_socket_free(address)
        return
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, resolved = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(resolved)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise FailedPreconditionError(
                f"{address} is in use by another process", reason="ADDRESS_IN_USE"
            ) from error
        raise _unusable(address, error.strerror or str(error)) from error


def _check_socket_free(address: str) -> None:
    path = address.removeprefix("unix:")
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise _unusable(address, "there is a file that is not a socket")
    except FileNotFoundError:
        if not os.path.isdir(os.path.dirname(path)):
            raise _unusable(address, "the directory does not exist") from None
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)  # left over by a process that is gone
            return
    raise FailedPreconditionError(
        f"{address} is in use by another process", reason="ADDRESS_IN_USE"
    )


def _unusable(address: str, problem: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"cannot listen on {address}: {problem}", reason="ADDRESS_UNUSABLE"
    )
