"""Messages on their way to one gateway."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from disagfusion.errors import ResourceExhaustedError
from disagfusion.v1 import stage_pb2

_LIMIT = 100_000


class Outbox:
    """A bounded queue; a gateway that does not read loses its stream, not the worker its memory."""

    def __init__(self) -> None:
        self._messages: deque[stage_pb2.WorkResponse] = deque()
        self._there = asyncio.Event()
        self._closed = False
        self._overflown = False

    def put(self, message: stage_pb2.WorkResponse) -> None:
        """Add a message."""
        if len(self._messages) >= _LIMIT:
            self._overflown = True
            self._messages.clear()
        self._messages.append(message)
        self._there.set()

    def close(self) -> None:
        """End the stream once everything has been taken."""
        self._closed = True
        self._there.set()

    async def drain(self) -> AsyncIterator[stage_pb2.WorkResponse]:
        """Yield messages until the outbox is closed.

        Raises:
            ResourceExhaustedError: They were not taken fast enough.
        """
        while True:
            while self._messages:
                if self._overflown:
                    raise ResourceExhaustedError("the stream's messages were not read")
                yield self._messages.popleft()
            if self._closed:
                return
            self._there.clear()
            await self._there.wait()
