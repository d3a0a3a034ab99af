"""A network between a sender and a receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from disagfusion.transport.address import StreamAddress
from disagfusion.transport.api import PeerAddress

from .conftest import End


@asynccontextmanager
async def network(
    receiver: End, change: Callable[[int, bytes], bytes | None]
) -> AsyncIterator[tuple[PeerAddress, list[bytes]]]:
    """A network between a sender and a receiver that may change what the sender says.

    `change` is given the position in the stream and the bytes; None cuts the connection.
    """
    address = receiver.transport.address
    where = StreamAddress.decode(address.data)
    seen: list[bytes] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(where.host, where.port)

        async def back() -> None:
            while data := await there_reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.close()

        async def forth() -> None:
            position = 0
            while data := await reader.read(1 << 16):
                changed = change(position, data)
                if changed is None:
                    break
                position += len(data)
                seen.append(changed)
                there_writer.write(changed)
                await there_writer.drain()
            there_writer.close()

        await asyncio.gather(back(), forth(), return_exceptions=True)
        writer.transport.abort()
        there_writer.transport.abort()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    data = StreamAddress(where.host, port, where.token, where.tls, where.extra).encode()
    try:
        yield PeerAddress(address.backend, address.incarnation, data), seen
    finally:
        server.close()
        await server.wait_closed()
