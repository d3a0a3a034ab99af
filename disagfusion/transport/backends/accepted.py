"""A connection that somebody made to us: the receiving side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from disagfusion.transport.api import PeerLostError
from disagfusion.transport.backends.connection import Connection, Heart, leaf, uninterrupted
from disagfusion.transport.backends.link import Digests, Link
from disagfusion.transport.digest import Digester, Hold
from disagfusion.transport.frame import Frame, Kind, decode_data, decode_digests, decode_offer
from disagfusion.transport.inbound import Receiver
from disagfusion.transport.settings import TransportSettings
from disagfusion.transport.wire import MalformedError

_SCRATCH = 64 << 10


class Accepted:
    """Receives messages over a connection whose other side has introduced itself.

    Args:
        connection: The connection.
        link: Carries the payload.
        receiver: Decides.
        digester: Computes checksums of what comes over the connection itself.
        hold: Awaited before a segment counts.
        settings: Intervals.
    """

    def __init__(
        self,
        connection: Connection,
        link: Link,
        receiver: Receiver,
        digester: Digester,
        hold: Hold,
        settings: TransportSettings,
    ) -> None:
        self._connection = connection
        self._link = link
        self._receiver = receiver
        self._digester = digester
        self._hold = hold
        self._loop = asyncio.get_running_loop()
        self._heart = Heart(connection, settings, self._check)
        self._next = 0
        # A refused message whose payload may be on its way all the same, and how much of it.
        self._refused = 0
        self._stray = 0

    async def run(self) -> None:
        """Receive until the connection ends.

        Raises:
            ExceptionGroup: Why it ended: `OSError`, `MalformedError` or `PeerLostError`.
        """
        reason = "the receiver closes"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._heart.run())
                await self._read(group)
        except* (OSError, MalformedError, PeerLostError) as error:
            reason = str(leaf(error))
            raise
        finally:
            await uninterrupted(self._give_up(reason))

    async def _read(self, group: asyncio.TaskGroup) -> None:
        while True:
            frame = await self._connection.read()
            if frame.kind is Kind.BEAT:
                continue
            if frame.kind in (Kind.HEADER, Kind.EAGER):
                await self._offered(frame, group)
            elif frame.stream == self._refused and frame.kind in (Kind.DATA, Kind.DIGEST):
                await self._skip(frame)
            elif not self._receiver.busy or frame.stream != self._receiver.stream:
                raise MalformedError(f"{frame.kind.name} of no message")
            elif frame.kind is Kind.DATA and self._link.inline:
                await self._data(frame, group)
            elif frame.kind is Kind.DIGEST:
                digests = decode_digests(frame.body)
                await self._answer(self._receiver.announced(digests, self._loop.time()))
            else:
                raise MalformedError(f"{frame.kind.name} from a sender")

    async def _offered(self, frame: Frame, group: asyncio.TaskGroup) -> None:
        offer = decode_offer(frame.body)
        answer = self._receiver.offered(frame.stream, offer, self._loop.time())
        if answer.kind is Kind.READY:
            self._next = 0
            self._heart.start()
            if not self._link.inline:
                views = self._receiver.views
                coming = self._link.receive(frame.stream, views)
                group.create_task(self._arrivals(coming, views))
            if frame.kind is Kind.HEADER:
                await self._connection.write(answer)
        else:
            if frame.kind is Kind.EAGER:
                self._refused, self._stray = frame.stream, offer.header.nbytes
            await self._connection.write(answer)

    async def _skip(self, frame: Frame) -> None:
        if frame.kind is Kind.DIGEST:
            self._refused = 0
            return
        _, nbytes = decode_data(frame.body)
        self._stray -= nbytes
        if self._stray < 0 or not self._link.inline:
            raise MalformedError("more than was offered")
        scratch = memoryview(bytearray(min(nbytes, _SCRATCH)))
        while nbytes:
            part = scratch[:nbytes]
            await self._connection.channel.read_into(part)
            nbytes -= part.nbytes

    async def _data(self, frame: Frame, group: asyncio.TaskGroup) -> None:
        index, nbytes = decode_data(frame.body)
        views = self._receiver.views
        if index != self._next or index >= len(views) or views[index].nbytes != nbytes:
            raise MalformedError("a segment out of turn")
        self._next += 1
        await self._connection.channel.read_into(views[index])
        # The next segment is read while this one is verified.
        group.create_task(self._verify(index, views[index]))

    async def _arrivals(self, coming: Awaitable[Digests], views: tuple[memoryview, ...]) -> None:
        for index, (view, digest) in enumerate(zip(views, await coming, strict=True)):
            await self._arrived(index, view, digest)

    async def _verify(self, index: int, view: memoryview) -> None:
        await self._arrived(index, view, await self._digester(view))

    async def _arrived(self, index: int, view: memoryview, digest: int) -> None:
        await self._hold(view)
        await self._answer(self._receiver.segment(index, digest, self._loop.time()))

    async def _answer(self, frame: Frame | None) -> None:
        if frame is not None:
            self._heart.stop()
            await self._connection.write(frame)

    def _check(self, now: float) -> None:
        if self._receiver.expired(now):
            raise PeerLostError("the transfer took too long")

    async def _give_up(self, reason: str) -> None:
        # In this order: only then may the memory be somebody else's.
        await self._link.aclose()
        self._connection.close()
        self._receiver.lost(reason, self._loop.time())
