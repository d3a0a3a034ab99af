"""The listening side: lets in whoever holds our address, and keeps everyone else short."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from disagfusion.transport.api import Inbox, PeerLostError, RefusalReason, RefusedError
from disagfusion.transport.backends.accepted import Accepted
from disagfusion.transport.backends.channel import wrap
from disagfusion.transport.backends.connection import MAX_HELLO, Connection, leaf
from disagfusion.transport.backends.link import Link
from disagfusion.transport.digest import Digester, Hold
from disagfusion.transport.frame import Frame, Hello, Kind, decode_hello, encode_hello
from disagfusion.transport.inbound import Receiver
from disagfusion.transport.session import Ledger, check_hello
from disagfusion.transport.settings import Observer, TransportSettings
from disagfusion.transport.wire import MalformedError

logger = logging.getLogger(__name__)

LinkIn = Callable[[Connection, bytes], Awaitable[tuple[Link, bytes]]]
_EXPECTED = (OSError, MalformedError, PeerLostError, RefusedError)
# Connections that have not introduced themselves; one more drops the oldest, so that strangers
# keep out strangers only.
_MAX_STRANGERS = 64
_PAUSE_SECONDS = 0.1
# Between hand-overs nobody beats. The kernel ends what a lost machine has left, which would in the
# end keep new senders out; accepted sockets have this from the one that listens.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
_REASONS = {
    RefusalReason.UNKNOWN_GRANT: "token",
    RefusalReason.STALE: "stale",
    RefusalReason.TOO_LARGE: "crowded",
}


class Acceptor:
    """Serves every connection to a listening socket.

    Args:
        listener: A listening socket that does not block; the acceptor owns it.
        inbox: Of the transport.
        link_in: Makes the carrier of a connection.
        digester: Computes checksums of what comes over the connection itself.
        hold: Awaited before a segment counts.
        incarnation: Ours.
        token: What a connecting side must show.
        backend: Ours.
        settings: Bounds and intervals.
        observer: Is told what happens.
    """

    def __init__(
        self,
        listener: socket.socket,
        inbox: Inbox,
        link_in: LinkIn,
        digester: Digester,
        hold: Hold,
        *,
        incarnation: str,
        token: bytes,
        backend: str,
        settings: TransportSettings,
        observer: Observer,
    ) -> None:
        self._listener = listener
        for option in _KEEPALIVE if listener.family != socket.AF_UNIX else ():
            listener.setsockopt(*option)
        self._inbox = inbox
        self._link_in = link_in
        self._digester = digester
        self._hold = hold
        self._incarnation = incarnation
        self._token = token
        self._backend = backend
        self._settings = settings
        self._observer = observer
        self._ledger = Ledger()
        self._strangers: dict[asyncio.Task[None], None] = {}
        self._known: set[asyncio.Task[None]] = set()
        self._unserved: dict[asyncio.Task[None] | None, socket.socket] = {}
        self._again: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._again = None
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def aclose(self) -> None:
        """Drop what is being received and close every connection."""
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._again is not None:
            self._again.cancel()
        tasks = [*self._strangers, *self._known]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._listener.close()

    def _accept(self) -> None:
        # Not `sock_accept`: cancelled at the wrong moment it loses a connection.
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Out of file descriptors: others may do better.
            logger.warning("cannot accept a connection", extra={"error": str(error)})
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener)
            self._again = loop.call_later(_PAUSE_SECONDS, self.start)
            return
        if len(self._strangers) >= _MAX_STRANGERS:
            self._observer.rejected("crowded")
            next(iter(self._strangers)).cancel()
        task = asyncio.ensure_future(self._serve(sock))
        self._strangers[task] = None
        self._unserved[task] = sock
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task, None)
        self._known.discard(task)
        # One that was cancelled before it began has closed nothing itself.
        if (sock := self._unserved.pop(task, None)) is not None:
            sock.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a connection ended with an unexpected error", exc_info=error)

    async def _serve(self, sock: socket.socket) -> None:
        del self._unserved[asyncio.current_task()]
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                channel = await wrap(sock, self._settings.server_tls, server=True)
                accepted = await self._meet(Connection(channel))
        except _EXPECTED as error:
            # TimeoutError is an OSError.
            silent = isinstance(error, TimeoutError)
            self._rejected("silent" if silent else _reason(error), error)
            return
        try:
            await accepted.run()
        except* (OSError, PeerLostError) as group:
            logger.debug("a connection ended", extra={"error": str(leaf(group))})
        except* MalformedError as group:
            self._rejected("malformed", leaf(group))

    async def _meet(self, connection: Connection) -> Accepted:
        try:
            hello = await self._hello(connection)
            link, greeting = await self._link_in(connection, hello.greeting)
        except RefusedError as error:
            await connection.refuse(error.reason, error.detail)
            connection.close()
            raise
        except BaseException:
            connection.close()
            raise
        receiver = Receiver(
            self._inbox,
            self._ledger,
            sender=hello.incarnation,
            observer=self._observer,
            transport=link.name,
            max_bytes=self._settings.max_message_bytes,
            max_seconds=self._settings.transfer_seconds,
        )
        welcome = Hello(self._incarnation, hello.incarnation, b"", self._backend, greeting)
        try:
            await connection.write(Frame(Kind.WELCOME, 0, encode_hello(welcome)))
        except BaseException:
            await link.aclose()
            connection.close()
            raise
        return Accepted(connection, link, receiver, self._digester, self._hold, self._settings)

    async def _hello(self, connection: Connection) -> Hello:
        frame = await connection.read(MAX_HELLO)
        if frame.kind is not Kind.HELLO:
            raise MalformedError("no introduction")
        hello = decode_hello(frame.body)
        check_hello(hello, incarnation=self._incarnation, token=self._token, backend=self._backend)
        task = asyncio.current_task()
        if task is None or len(self._known) >= self._settings.max_connections:
            raise RefusedError(RefusalReason.TOO_LARGE, "too many connections")
        self._strangers.pop(task, None)
        self._known.add(task)
        return hello

    def _rejected(self, reason: str, error: BaseException) -> None:
        self._observer.rejected(reason)
        logger.warning("connection rejected", extra={"reason": reason, "error": str(error)[:200]})


def _reason(error: BaseException) -> str:
    if isinstance(error, MalformedError):
        return "malformed"
    if isinstance(error, RefusedError):
        return _REASONS.get(error.reason, "malformed")
    return "handshake"
