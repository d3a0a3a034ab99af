"""A connection that we made: the sending side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from disagfusion.transport.api import Message, PeerLostError, RefusedError
from disagfusion.transport.backends.connection import Connection, Heart, leaf, uninterrupted
from disagfusion.transport.backends.link import Link
from disagfusion.transport.frame import Kind
from disagfusion.transport.outbound import Outgoing, Phase
from disagfusion.transport.settings import TransportSettings
from disagfusion.transport.wire import MalformedError

LOST = (OSError, MalformedError, PeerLostError)


class Dialed:
    """Sends messages over a connection, one at a time.

    Args:
        connection: The connection; the other side has been introduced.
        link: Carries the payload.
        settings: Intervals.

    Attributes:
        usable: Whether another message may be sent.
    """

    def __init__(self, connection: Connection, link: Link, settings: TransportSettings) -> None:
        self._connection = connection
        self._link = link
        self._settings = settings
        self._streams = 0
        self._expiry: asyncio.TimerHandle | None = None
        self.usable = True

    @property
    def transport(self) -> str:
        """What carries the payload."""
        return self._link.name

    async def deliver(self, message: Message, seconds: float) -> None:
        """Hand a message over; nothing reads its memory when this has returned or raised.

        Raises:
            RefusedError: The receiver said no.
            PeerLostError: The peer is gone or silent.
        """
        self._streams += 1
        outgoing = Outgoing(
            message,
            stream=self._streams,
            segment_bytes=self._settings.segment_bytes,
            seconds=seconds,
            eager_bytes=self._settings.eager_bytes,
        )
        clean = False
        try:
            refusal = await self._converse(outgoing)
            # What is left of a payload that was refused would be taken for the next one's.
            clean = refusal is None or not outgoing.stray
        except ExceptionGroup as group:
            _, unexpected = group.split(LOST)
            if unexpected is not None:
                raise
            raise PeerLostError(str(leaf(group))) from group
        finally:
            if not clean:
                await self.aclose()
        if refusal is not None:
            raise refusal

    async def _converse(self, outgoing: Outgoing) -> RefusedError | None:
        heart = Heart(self._connection, self._settings, lambda now: None)
        heart.start()
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(heart.run())
            payload: asyncio.Task[None] | None = None
            refusal = None
            if outgoing.eager:
                carried, digests = self._link.eager(outgoing.stream, outgoing.segments)
                await self._connection.write(outgoing.offer, *carried, outgoing.sent(digests))
                payload = group.create_task(self._link.sent())
            else:
                await self._connection.write(outgoing.offer)
            while outgoing.phase is not Phase.DELIVERED:
                frame = await self._connection.read()
                if frame.kind is Kind.BEAT:
                    continue
                try:
                    outgoing.answered(frame)
                except RefusedError as error:
                    refusal = error
                    break
                if outgoing.phase is Phase.SENDING:
                    payload = group.create_task(self._payload(outgoing))
            if payload is not None:
                if refusal is None:
                    # The receiver has everything, but the carrier may still hold the memory.
                    await payload
                payload.cancel()
            beating.cancel()
        return refusal

    async def _payload(self, outgoing: Outgoing) -> None:
        digests = await self._link.send(outgoing.stream, outgoing.segments)
        await self._connection.write(outgoing.sent(digests))
        await self._link.sent()

    def rest(self, seconds: float, expired: Callable[[Dialed], None]) -> None:
        """Stay open without a message.

        Args:
            seconds: For how long.
            expired: Called when the time is over or the peer has closed.
        """
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(seconds, expired, self)
        self._connection.channel.watch(lambda: self._readable(expired))

    def wake(self) -> bool:
        """Stop resting; return whether a message can be sent."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._connection.channel.unwatch()
        return self.usable and not self._connection.channel.ended

    async def aclose(self) -> None:
        """Give up what is under way and close."""
        self.usable = False
        try:
            await uninterrupted(self._link.aclose())
        finally:
            self._connection.close()

    def _readable(self, expired: Callable[[Dialed], None]) -> None:
        # A beat that crossed the acknowledgement is no reason to close.
        self._connection.channel.unwatch()
        if self._connection.channel.ended:
            expired(self)
