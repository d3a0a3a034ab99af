"""A transport whose control goes over sockets; subclasses choose what carries the payload."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from abc import abstractmethod
from collections.abc import Awaitable, Callable

from disagfusion.transport.address import StreamAddress
from disagfusion.transport.api import (
    Delivery,
    Inbox,
    Message,
    PeerAddress,
    PeerLostError,
    RefusedError,
    Transport,
    TransportError,
)
from disagfusion.transport.backends.acceptor import Acceptor
from disagfusion.transport.backends.channel import wrap
from disagfusion.transport.backends.connection import Connection
from disagfusion.transport.backends.dialed import Dialed
from disagfusion.transport.backends.link import Link
from disagfusion.transport.backends.pool import Pool
from disagfusion.transport.digest import Digest, Digester, Hold, no_hold, xxh3
from disagfusion.transport.frame import Hello
from disagfusion.transport.settings import NullObserver, Observer, TransportSettings
from disagfusion.transport.wire import MalformedError

logger = logging.getLogger(__name__)

# Takes what to say, and returns what the peer answers, for the carrier's sake.
Introduce = Callable[[bytes], Awaitable[bytes]]


class StreamTransport(Transport):
    """What all backends with sockets share.

    Args:
        inbox: The receiving side.
        incarnation: Ours.
        settings: Settings.
        observer: Is told what happens.
        digest: Computes checksums; for tests.
        hold: Awaited when a segment has come and before it counts; for tests.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        incarnation: str,
        settings: TransportSettings,
        observer: Observer | None = None,
        digest: Digest = xxh3,
        hold: Hold = no_hold,
    ) -> None:
        self._inbox = inbox
        self._incarnation = incarnation
        self._settings = settings
        self._observer: Observer = observer or NullObserver()
        self._digest = digest
        self._digester = Digester(digest)
        self._hold = hold
        self._pool = Pool(
            self._dial,
            per_peer=settings.connections_per_peer,
            idle_seconds=settings.idle_seconds,
        )
        self._sends: set[asyncio.Task[Delivery]] = set()
        self._acceptor: Acceptor | None = None
        self._address: PeerAddress | None = None
        self._closed = False

    @property
    def address(self) -> PeerAddress:
        """Where others send to."""
        if self._address is None:
            raise TransportError("the transport has not been started")
        return self._address

    async def start(self) -> None:
        """Open for senders."""
        await self._open()
        try:
            listener = _listen(self._settings)
        except OSError as error:
            await self._shut()
            where = f"{self._settings.host}:{self._settings.port}"
            raise TransportError(f"cannot listen on {where}: {error}") from error
        token = secrets.token_bytes(16)
        data = StreamAddress(
            host=self._settings.advertise or self._settings.host,
            port=listener.getsockname()[1],
            token=token,
            tls=self._settings.server_tls is not None,
            extra=self._extra(),
        )
        self._address = PeerAddress(self.backend, self._incarnation, data.encode())
        self._acceptor = Acceptor(
            listener,
            self._inbox,
            self._link_in,
            self._digester,
            self._hold,
            incarnation=self._incarnation,
            token=token,
            backend=self.backend,
            settings=self._settings,
            observer=self._observer,
        )
        self._acceptor.start()

    async def send(
        self,
        peer: PeerAddress,
        message: Message,
        *,
        timeout: float,  # noqa: ASYNC109  # as the interface has it
    ) -> Delivery:
        """Hand a message over and wait for the acknowledgement."""
        if self._closed or self._address is None:
            raise PeerLostError("the transport is closed")
        if peer.backend != self.backend:
            raise TransportError(f"{self.backend} cannot reach a peer over {peer.backend}")
        # A task of our own, so that closing the transport can end it in an orderly way.
        task = asyncio.ensure_future(self._send(peer, message, timeout))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise PeerLostError("the transport was closed") from None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def aclose(self) -> None:
        """Give up what is under way, free everything."""
        self._closed = True
        for task in self._sends:
            task.cancel()
        if self._sends:
            await asyncio.wait(list(self._sends))
        await self._pool.aclose()
        if self._acceptor is not None:
            await self._acceptor.aclose()
        await self._shut()
        await self._digester.aclose()

    async def _send(self, peer: PeerAddress, message: Message, seconds: float) -> Delivery:
        loop = asyncio.get_running_loop()
        started = loop.time()
        nbytes = message.header.nbytes
        transport, outcome = self.backend, "lost"
        try:
            async with asyncio.timeout(seconds), self._pool.connection(peer) as dialed:
                transport = dialed.transport
                remaining = max(started + seconds - loop.time(), 0.001)
                await dialed.deliver(message, remaining)
            outcome = "delivered"
            return Delivery(loop.time() - started, nbytes, transport)
        except TimeoutError as error:
            raise PeerLostError(f"not acknowledged within {seconds:g} s") from error
        except RefusedError as error:
            outcome = error.reason.value
            raise
        finally:
            self._observer.sent(transport, outcome, nbytes, loop.time() - started)

    async def _dial(self, peer: PeerAddress) -> Dialed:
        try:
            where = StreamAddress.decode(peer.data)
            async with asyncio.timeout(self._settings.connect_seconds):
                return await self._connect(peer, where)
        except TimeoutError as error:
            raise PeerLostError("no connection within the time allowed") from error
        except (OSError, MalformedError) as error:
            raise PeerLostError(f"no connection: {error}") from error

    async def _connect(self, peer: PeerAddress, where: StreamAddress) -> Dialed:
        if where.tls and self._settings.client_tls is None:
            raise PeerLostError("the peer wants TLS, none is configured here")
        tls = self._settings.client_tls if where.tls else None
        sock = await _connected(where.host, where.port)
        name = self._settings.tls_server_name or where.host
        connection = Connection(await wrap(sock, tls, server=False, name=name))

        async def introduce(greeting: bytes) -> bytes:
            hello = Hello(self._incarnation, peer.incarnation, where.token, self.backend, greeting)
            return (await connection.introduce(hello)).greeting

        try:
            link = await self._link_out(connection, where, peer.incarnation, introduce)
        except BaseException:
            connection.close()
            raise
        return Dialed(connection, link, self._settings)

    @abstractmethod
    async def _open(self) -> None:
        """Prepare the carrier.

        Raises:
            TransportError: It cannot run here.
        """

    @abstractmethod
    async def _shut(self) -> None:
        """Free the carrier; all links are closed."""

    @abstractmethod
    def _extra(self) -> bytes:
        """Return what the address says for the carrier's sake."""

    @abstractmethod
    async def _link_out(
        self, connection: Connection, where: StreamAddress, incarnation: str, introduce: Introduce
    ) -> Link:
        """Return the carrier of a connection that we made.

        Args:
            connection: The connection.
            where: The peer's address.
            incarnation: The peer's.
            introduce: To be called once: says hello, returns the answer.
        """

    @abstractmethod
    async def _link_in(self, connection: Connection, greeting: bytes) -> tuple[Link, bytes]:
        """Return the carrier of a connection that was made to us, and what to answer.

        Raises:
            MalformedError: The greeting makes no sense.
            RefusedError: The carrier cannot serve this peer.
        """


def _listen(settings: TransportSettings) -> socket.socket:
    infos = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = infos[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(512)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in infos:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure
