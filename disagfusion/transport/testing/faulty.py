"""A transport that misbehaves on request."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable

from disagfusion.transport.api import (
    Delivery,
    Message,
    PeerAddress,
    PeerLostError,
    Transport,
    TransportError,
)
from disagfusion.transport.digest import Digest, xxh3
from disagfusion.transport.testing.wrapper import TransportWrapper


class Fault(enum.Enum):
    """What can go wrong with a message.

    DROP: it never leaves, and its time runs out.
    DELAY: it leaves late.
    DUPLICATE: it is sent twice; what becomes of the second is in `FaultyTransport.duplicates`.
    CORRUPT: payload and checksum do not fit when it arrives.
    LOSE_ACK: it arrives, and the sender is told that the peer is lost.
    """

    DROP = enum.auto()
    DELAY = enum.auto()
    DUPLICATE = enum.auto()
    CORRUPT = enum.auto()
    LOSE_ACK = enum.auto()


class FaultyTransport(TransportWrapper):
    """Wraps a transport; each message takes the next fault from a queue, if there is one.

    Args:
        make: Makes the wrapped transport, given the digest that it must use.
        delay: Seconds for `Fault.DELAY`.

    Attributes:
        faults: What to do to the next messages; None leaves one alone.
        duplicates: What became of the second sending of each duplicate.
    """

    def __init__(self, make: Callable[[Digest], Transport], *, delay: float = 0.05) -> None:
        self.faults: deque[Fault | None] = deque()
        self.duplicates: list[Delivery | TransportError] = []
        self._delay = delay
        self._corrupt = False
        super().__init__(make(self._digest))

    async def send(
        self,
        peer: PeerAddress,
        message: Message,
        *,
        timeout: float,  # noqa: ASYNC109  # as the interface has it
    ) -> Delivery:
        """Send with the next fault."""
        fault = self.faults.popleft() if self.faults else None
        if fault is Fault.DROP:
            await asyncio.sleep(timeout)
            raise PeerLostError(f"not acknowledged within {timeout:g} s")
        if fault is Fault.DELAY:
            await asyncio.sleep(self._delay)
        self._corrupt = fault is Fault.CORRUPT
        try:
            delivery = await self._inner.send(peer, message, timeout=timeout)
        finally:
            self._corrupt = False
        if fault is Fault.DUPLICATE:
            try:
                self.duplicates.append(await self._inner.send(peer, message, timeout=timeout))
            except TransportError as error:
                self.duplicates.append(error)
        if fault is Fault.LOSE_ACK:
            raise PeerLostError("the acknowledgement was lost")
        return delivery

    def _digest(self, view: memoryview) -> int:
        right = xxh3(view)
        return right ^ 1 if self._corrupt else right
