"""TCP, with TLS where certificates are configured."""

from __future__ import annotations

from disagfusion.transport.address import StreamAddress
from disagfusion.transport.backends.connection import Connection
from disagfusion.transport.backends.link import InlineLink, Link
from disagfusion.transport.backends.stream import Introduce, StreamTransport


class TcpTransport(StreamTransport):
    """The payload goes over the same connection as what is said about it."""

    backend = "tcp"

    async def _open(self) -> None:
        """Nothing to prepare."""

    async def _shut(self) -> None:
        """Nothing to free."""

    def _extra(self) -> bytes:
        return b""

    async def _link_out(
        self, connection: Connection, where: StreamAddress, incarnation: str, introduce: Introduce
    ) -> Link:
        await introduce(b"")
        return InlineLink(connection, "tcp+tls" if where.tls else "tcp", self._digester)

    async def _link_in(self, connection: Connection, greeting: bytes) -> tuple[Link, bytes]:
        tls = self._settings.server_tls is not None
        return InlineLink(connection, "tcp+tls" if tls else "tcp", self._digester), b""
