"""What the address of a transport with sockets says."""

from __future__ import annotations

from dataclasses import dataclass

from disagfusion.transport.frame import MAX_GREETING
from disagfusion.transport.wire import MalformedError, Reader, Writer


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Where to connect and how to be let in.

    Attributes:
        host: Name or address.
        port: TCP port.
        token: A secret that a connecting side must show; whoever has the address has it.
        tls: Whether the port speaks TLS.
        extra: Opaque to everyone but the backend.
    """

    host: str
    port: int
    token: bytes
    tls: bool = False
    extra: bytes = b""

    def encode(self) -> bytes:
        """Return the address as bytes."""
        writer = Writer()
        writer.text(self.host)
        writer.u32(self.port)
        writer.blob(self.token)
        writer.u8(self.tls)
        writer.blob(self.extra)
        return writer.done()

    @classmethod
    def decode(cls, data: bytes) -> StreamAddress:
        """Return the address that the bytes mean.

        Raises:
            MalformedError: They mean none.
        """
        reader = Reader(data)
        address = cls(
            host=reader.text(255),
            port=reader.u32(),
            token=reader.blob(64),
            tls=bool(reader.u8()),
            extra=reader.blob(MAX_GREETING),
        )
        reader.end()
        if not address.host or not 0 < address.port < 1 << 16:
            raise MalformedError("an address that leads nowhere")
        return address
