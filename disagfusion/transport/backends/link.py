"""How the payload goes once a connection has agreed on a message."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from disagfusion.transport.frame import Frame, Kind, encode_data
from disagfusion.transport.wire import MalformedError

if TYPE_CHECKING:
    from disagfusion.transport.backends.connection import Connection


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
    async def send(self, stream: int, segments: Sequence[memoryview]) -> None:
        """Give all segments to the carrier; returns when their memory is no longer read.

        Raises:
            OSError: The carrier failed.
        """

    @abstractmethod
    def expect(self, stream: int, views: Sequence[memoryview]) -> None:
        """Prepare to receive segments into their memory."""

    @abstractmethod
    async def arrival(self, index: int) -> None:
        """Return when an expected segment is in its memory.

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
    """

    inline = True

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    @property
    def name(self) -> str:
        """What carries the payload."""
        return self._name

    async def send(self, stream: int, segments: Sequence[memoryview]) -> None:
        """Write all segments."""
        for index, segment in enumerate(segments):
            frame = Frame(Kind.DATA, stream, encode_data(index, segment.nbytes))
            await self._connection.write(frame, segment)

    def expect(self, stream: int, views: Sequence[memoryview]) -> None:
        """Do nothing: whoever reads the connection reads the segments."""

    async def arrival(self, index: int) -> None:
        """Refuse: segments arrive as frames."""
        raise MalformedError(f"segment {index} is not announced by a frame")

    async def aclose(self) -> None:
        """Do nothing: memory is touched only while the connection is read and written."""
