"""Frames over a channel, and the beat that both ends of a hand-over keep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from disagfusion.transport.api import PeerLostError, RefusalReason, RefusedError
from disagfusion.transport.backends.channel import Channel
from disagfusion.transport.frame import (
    MAX_BODY,
    PREFIX_SIZE,
    Frame,
    Hello,
    Kind,
    decode,
    decode_hello,
    decode_prefix,
    decode_refusal,
    encode,
    encode_hello,
    encode_refusal,
)
from disagfusion.transport.session import Liveness
from disagfusion.transport.settings import TransportSettings
from disagfusion.transport.wire import MalformedError

# Before a peer has introduced itself it may not make us keep more than this.
MAX_HELLO = 32 << 10


def leaf(group: BaseException) -> BaseException:
    """Return the first exception in a group that is not a group itself."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


async def uninterrupted(ending: Awaitable[None]) -> None:
    """Wait for the end of something that must be finished, whoever is cancelled meanwhile."""
    task = asyncio.ensure_future(ending)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


class Connection:
    """Frames over a channel; one task reads, any task writes.

    Args:
        channel: The channel; the connection owns it.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._writing = asyncio.Lock()

    @property
    def writing(self) -> bool:
        """Whether a write is under way."""
        return self._writing.locked()

    async def read(self, max_body: int = MAX_BODY) -> Frame:
        """Return the next frame.

        Raises:
            MalformedError: It is none.
            ConnectionError: The peer is gone.
        """
        prefix = decode_prefix(await self.channel.read(PREFIX_SIZE), max_body=max_body)
        return decode(prefix, await self.channel.read(prefix.length))

    async def write(self, *parts: Frame | memoryview) -> None:
        """Write frames and what follows them, with nothing between.

        Raises:
            ConnectionError: The peer is gone.
        """
        async with self._writing:
            await self.channel.write(
                *(encode(part) if isinstance(part, Frame) else part for part in parts)
            )

    async def introduce(self, hello: Hello) -> Hello:
        """Say who we are on a connection that we made; return who answers.

        Raises:
            RefusedError: The other side does not want us.
            MalformedError: It does not speak our protocol.
            ConnectionError: It is gone.
        """
        await self.write(Frame(Kind.HELLO, 0, encode_hello(hello)))
        frame = await self.read(MAX_HELLO)
        if frame.kind is Kind.NACK:
            raise RefusedError(*decode_refusal(frame.body))
        if frame.kind is not Kind.WELCOME:
            raise MalformedError("no welcome")
        welcome = decode_hello(frame.body)
        if welcome.incarnation != hello.expected:
            raise RefusedError(RefusalReason.STALE, "another incarnation lives there now")
        return welcome

    async def refuse(self, reason: RefusalReason, detail: str) -> None:
        """Say why the connection is going to be closed."""
        await self.write(Frame(Kind.NACK, 0, encode_refusal(reason, detail)))

    def close(self) -> None:
        """Close at once; nobody may be reading or writing."""
        self.channel.close()


class Heart:
    """Beats while a hand-over is under way, and notices when the other end does not.

    Args:
        connection: The connection.
        settings: Intervals.
        check: Called at each beat with the time; may raise to end the connection.
    """

    def __init__(
        self, connection: Connection, settings: TransportSettings, check: Callable[[float], None]
    ) -> None:
        self._connection = connection
        self._check = check
        self._active = asyncio.Event()
        self._liveness = Liveness(
            interval=settings.heartbeat_seconds, limit=settings.silence_seconds
        )

    def start(self) -> None:
        """A hand-over begins."""
        self._liveness.begin(asyncio.get_running_loop().time())
        self._active.set()

    def stop(self) -> None:
        """The hand-over is over; without one there is nothing to wake for."""
        self._active.clear()

    async def run(self) -> None:
        """Beat until cancelled.

        Raises:
            PeerLostError: The peer is silent.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._active.wait()
            await asyncio.sleep(self._liveness.interval)
            if not self._active.is_set():
                continue
            now = loop.time()
            if self._liveness.lost(self._connection.channel.heard, now):
                raise PeerLostError("the peer is silent")
            self._check(now)
            # A write under way is a sign of life by itself.
            if not self._connection.writing:
                await self._connection.write(Frame(Kind.BEAT, 0))
