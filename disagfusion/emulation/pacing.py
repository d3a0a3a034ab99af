"""Hand-overs that take as long as over the link of the accelerators that are emulated.

The bytes go over the real transport; the receiver holds back that they are there, until they would
have been. Meanwhile their slot is being filled and the sender waits for the acknowledgement, as
with a link of that speed.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from disagfusion.emulation.content import facts_of
from disagfusion.errors import DataLossError
from disagfusion.transport.api import Inbox, MessageHeader, RefusalReason, RefusedError


@dataclass(slots=True)
class _Arriving:
    memory: memoryview
    address: int
    begins: float
    ends: float


class PacedInbox:
    """An inbox that receives no faster than the sender's link and its own.

    Hand-overs of one sender come one after the other, those of several beside each other.

    Args:
        inbox: Who receives.
        bytes_per_second: Of the own link; None for as fast as it is.
        clock: Seconds, as the event loop counts them.
    """

    def __init__(
        self, inbox: Inbox, bytes_per_second: float | None, clock: Callable[[], float]
    ) -> None:
        self._inbox = inbox
        self._own = bytes_per_second
        self._clock = clock
        self._free_at: dict[str, float] = {}
        self._arriving: dict[tuple[str, str], _Arriving] = {}

    def admit(self, header: MessageHeader) -> memoryview:
        """See `transport.api.Inbox`."""
        try:
            sender = facts_of(header.structure).get("link_bytes_per_second")
        except DataLossError as error:
            raise RefusedError(RefusalReason.MALFORMED, error.message) from error
        memory = self._inbox.admit(header)
        rates = [rate for rate in (sender, self._own) if isinstance(rate, int | float) and rate > 0]
        if rates and memory.nbytes:
            now = self._clock()
            begins = max(now, self._free_at.get(header.sender, now))
            ends = begins + header.nbytes / min(rates)
            self._free_at[header.sender] = ends
            arriving = _Arriving(memory, _address(memory), begins, ends)
            self._arriving[header.sender, header.message_id] = arriving
        return memory

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        """See `transport.api.Inbox`."""
        self._arriving.pop((header.sender, header.message_id), None)
        self._inbox.delivered(header, seconds)

    def dropped(self, header: MessageHeader, reason: str) -> None:
        """See `transport.api.Inbox`."""
        self._arriving.pop((header.sender, header.message_id), None)
        self._inbox.dropped(header, reason)

    async def hold(self, view: memoryview) -> None:
        """Wait until what is in this memory would have arrived; see `transport.digest.Hold`."""
        await asyncio.sleep(max(0.0, self.due(view) - self._clock()))

    def due(self, view: memoryview) -> float:
        """Return when what is in this memory counts as there; 0 for memory of no message."""
        if view.readonly or not view.nbytes:
            return 0.0
        end = _address(view) + view.nbytes
        for arriving in self._arriving.values():
            length = end - arriving.address
            if 0 < length <= arriving.memory.nbytes:
                share = length / arriving.memory.nbytes
                return arriving.begins + share * (arriving.ends - arriving.begins)
        return 0.0


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
