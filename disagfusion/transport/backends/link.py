"""How the payload goes once a connection has agreed on a message."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

from disagfusion.transport.digest import Digester
from disagfusion.transport.frame import Frame, Kind, encode_data
from disagfusion.transport.wire import MalformedError

if TYPE_CHECKING:
    from disagfusion.transport.backends.connection import Connection

Digests = tuple[int, ...]


class Link(ABC):
    """Carries the payloads of one connection.

    Attributes:
        inline: Whether the payload comes in `DATA` frames on the connection itself.
    """

    inline: bool

    @property
    @abstractmethod
    def name(self) -> str:
        """What carries the payload, such as "tcp" or "ucx/shm"."""

    @abstractmethod
    async def send(self, stream: int, segments: Sequence[memoryview]) -> Digests:
        """Give all segments to the carrier; return their checksums.

        Raises:
            OSError: The carrier failed.
        """

    @abstractmethod
    def eager(
        self, stream: int, segments: Sequence[memoryview]
    ) -> tuple[Sequence[Frame | memoryview], Digests]:
        """Begin to send a small payload.

        Returns:
            What is to be written to the connection for it, and its checksums.
        """

    @abstractmethod
    async def sent(self) -> None:
        """Return when the memory of what was given to the carrier is no longer read.

        Raises:
            OSError: The carrier failed.
        """

    @abstractmethod
    def receive(self, stream: int, views: Sequence[memoryview]) -> Awaitable[Digests]:
        """Begin to fill the memory of all segments; await the checksums of what is there.

        Raises:
            OSError: The carrier failed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Give up what is under way; nothing touches the memory of any segment afterwards."""


class InlineLink(Link):
    """The payload goes over the connection itself.

    Args:
        connection: The connection.
        name: What it is called.
        digester: Computes checksums.
    """

    inline = True

    def __init__(self, connection: Connection, name: str, digester: Digester) -> None:
        self._connection = connection
        self._name = name
        self._digester = digester

    @property
    def name(self) -> str:
        """What carries the payload."""
        return self._name

    async def send(self, stream: int, segments: Sequence[memoryview]) -> Digests:
        """Write all segments; their checksums are computed meanwhile."""
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write(stream, segments))
            digests = tuple([await self._digester(segment) for segment in segments])
            await writing
        return digests

    def eager(
        self, stream: int, segments: Sequence[memoryview]
    ) -> tuple[Sequence[Frame | memoryview], Digests]:
        """Have all of it written."""
        parts: list[Frame | memoryview] = []
        for index, segment in enumerate(segments):
            parts += (Frame(Kind.DATA, stream, encode_data(index, segment.nbytes)), segment)
        return parts, tuple(self._digester.digest(segment) for segment in segments)

    async def sent(self) -> None:
        """Do nothing: what was written is not read again."""

    def receive(self, stream: int, views: Sequence[memoryview]) -> Awaitable[Digests]:
        """Refuse: segments arrive as frames, and whoever reads the connection reads them."""
        raise MalformedError("segments are announced by frames here")

    async def aclose(self) -> None:
        """Do nothing: memory is touched only while the connection is read and written."""

    async def _write(self, stream: int, segments: Sequence[memoryview]) -> None:
        for index, segment in enumerate(segments):
            frame = Frame(Kind.DATA, stream, encode_data(index, segment.nbytes))
            await self._connection.write(frame, segment)
