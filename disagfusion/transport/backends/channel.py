"""A connected socket, read and written without copies where there is no TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable

_LOOKAHEAD = 64 << 10


class Channel(ABC):
    """A stream of bytes to and from a peer.

    One task reads and one at a time writes. A call that was cancelled leaves the stream in an
    unknown state: the channel must be closed then.

    Attributes:
        heard: When the last byte came, on the event loop's clock.
    """

    heard = 0.0

    @abstractmethod
    async def read_into(self, view: memoryview) -> None:
        """Fill a view.

        Raises:
            ConnectionError: The stream ended.
        """

    @abstractmethod
    async def write(self, *parts: bytes | memoryview) -> None:
        """Write all parts, one after the other.

        Raises:
            ConnectionError: The stream ended.
        """

    @abstractmethod
    def close(self) -> None:
        """Close at once; what is not yet written may be lost.

        The tasks that read and write must have ended, for nothing wakes them.
        """

    @abstractmethod
    def watch(self, ended: Callable[[], None]) -> None:
        """Call `ended` once something is to be read, while nobody reads; best effort."""

    @abstractmethod
    def unwatch(self) -> None:
        """Stop watching."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether the peer is known to have closed its side, while nobody reads."""

    async def read(self, count: int) -> bytes:
        """Return exactly `count` bytes.

        Raises:
            ConnectionError: The stream ended.
        """
        data = bytearray(count)
        await self.read_into(memoryview(data))
        return bytes(data)


class SocketChannel(Channel):
    """A plain socket: payload goes from the kernel to its place and back, with no copy between."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        # Small reads are served from here, so that a frame costs one system call and not two.
        self._ahead = memoryview(bytearray(_LOOKAHEAD))
        self._start = self._end = 0

    async def read_into(self, view: memoryview) -> None:
        """Fill a view."""
        while view.nbytes:
            if self._start < self._end:
                count = min(view.nbytes, self._end - self._start)
                view[:count] = self._ahead[self._start : self._start + count]
                self._start += count
            elif view.nbytes >= _LOOKAHEAD:
                count = await self._receive(view)
            else:
                self._start, self._end = 0, await self._receive(self._ahead)
                continue
            view = view[count:]

    async def write(self, *parts: bytes | memoryview) -> None:
        """Write all parts."""
        if len(parts) > 1 and sum(map(len, parts)) <= _LOOKAHEAD:
            # One system call costs more than the copy, and the peer wakes up once.
            parts = (b"".join(parts),)
        for part in parts:
            await self._loop.sock_sendall(self._socket, part)

    def watch(self, ended: Callable[[], None]) -> None:
        """Call `ended` once something is to be read."""
        self._loop.add_reader(self._socket, ended)

    def unwatch(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._socket)

    def close(self) -> None:
        """Close at once."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()

    @property
    def ended(self) -> bool:
        """Whether the peer is known to have closed its side."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def _receive(self, view: memoryview) -> int:
        count = await self._loop.sock_recv_into(self._socket, view)
        if not count:
            raise ConnectionResetError("the peer closed the connection")
        self.heard = self._loop.time()
        return count


class TlsChannel(Channel):
    """A socket with TLS, which copies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()

    async def read_into(self, view: memoryview) -> None:
        """Fill a view."""
        while view.nbytes:
            data = await self._reader.read(view.nbytes)
            if not data:
                raise ConnectionResetError("the peer closed the connection")
            self.heard = self._loop.time()
            view[: len(data)] = data
            view = view[len(data) :]

    async def write(self, *parts: bytes | memoryview) -> None:
        """Write all parts."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()

    def watch(self, ended: Callable[[], None]) -> None:
        """Do nothing: asyncio reads ahead, and what it knows is in `ended`."""

    def unwatch(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close at once."""
        self._writer.transport.abort()

    @property
    def ended(self) -> bool:
        """Whether the peer is known to have closed its side."""
        return self._reader.at_eof() or self._writer.is_closing()


async def wrap(
    sock: socket.socket, tls: ssl.SSLContext | None, *, server: bool, name: str = ""
) -> Channel:
    """Return a channel over a connected socket.

    Args:
        sock: The socket; the channel owns it.
        tls: For TLS.
        server: Whether this is the accepting side.
        name: The name that the peer's certificate must have, on the connecting side.

    Raises:
        OSError: The TLS handshake failed (`ssl.SSLError` is one).
    """
    if tls is None:
        return SocketChannel(sock)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LOOKAHEAD * 4, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # The event loop has the socket from here on, and closes it where the handshake fails.
    if server:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=tls)
    else:
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=sock, ssl=tls, server_hostname=name
        )
    return TlsChannel(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
