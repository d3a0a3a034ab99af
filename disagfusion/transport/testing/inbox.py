"""A receiving side and an observer that keep what they are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from disagfusion.transport.api import (
    Message,
    MessageHeader,
    RefusalReason,
    RefusedError,
    TensorInfo,
)


class MemoryInbox:
    """Admits every message into memory of its own, unless told to refuse.

    Attributes:
        messages: What was delivered, by message id.
        headers: The headers of what was delivered, in order.
        drops: Message id and reason of what was dropped.
        refuse: Raised by `admit` while it is set.
    """

    def __init__(self) -> None:
        self.messages: dict[str, bytes] = {}
        self.headers: list[MessageHeader] = []
        self.drops: list[tuple[str, str]] = []
        self.refuse: RefusedError | None = None
        self._memory: dict[tuple[str, str], bytearray] = {}
        self._changed = asyncio.Event()

    @property
    def filling(self) -> int:
        """Number of messages that were admitted and have not ended."""
        return len(self._memory)

    def admit(self, header: MessageHeader) -> memoryview:
        """Return new memory."""
        if self.refuse is not None:
            raise self.refuse
        key = header.sender, header.message_id
        if key in self._memory:
            raise RefusedError(RefusalReason.UNKNOWN_GRANT, "admitted twice")
        memory = self._memory[key] = bytearray(header.nbytes)
        self._notify()
        return memoryview(memory)

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        """Keep the message."""
        if seconds < 0:
            raise ValueError("a message arrived before it was admitted")
        self.messages[header.message_id] = bytes(
            self._memory.pop((header.sender, header.message_id))
        )
        self.headers.append(header)
        self._notify()

    def dropped(self, header: MessageHeader, reason: str) -> None:
        """Keep the reason."""
        del self._memory[header.sender, header.message_id]
        self.drops.append((header.message_id, reason))
        self._notify()

    async def until(self, *, delivered: int = 0, dropped: int = 0, filling: int = 0) -> None:
        """Wait until at least that many messages were delivered, dropped and are being filled."""
        while (
            len(self.headers) < delivered
            or len(self.drops) < dropped
            or len(self._memory) < filling
        ):
            self._changed.clear()
            await self._changed.wait()

    async def until_idle(self) -> None:
        """Wait until no message is being filled."""
        while self._memory:
            self._changed.clear()
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()


class RecordingObserver:
    """Counts what it is told.

    Attributes:
        sent_outcomes: Attempts to send by outcome.
        received_outcomes: Offered messages by outcome.
        rejections: Closed connections by reason.
        transports: Names of what carried delivered messages, of both directions.
    """

    def __init__(self) -> None:
        self.sent_outcomes: Counter[str] = Counter()
        self.received_outcomes: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self.transports: set[str] = set()
        self._changed = asyncio.Event()

    def sent(self, transport: str, outcome: str, nbytes: int, seconds: float) -> None:
        """Count."""
        self.sent_outcomes[outcome] += 1
        if outcome == "delivered":
            self.transports.add(transport)
        self._changed.set()

    def received(self, transport: str, outcome: str, nbytes: int, seconds: float) -> None:
        """Count."""
        self.received_outcomes[outcome] += 1
        if outcome == "delivered":
            self.transports.add(transport)
        self._changed.set()

    def rejected(self, reason: str) -> None:
        """Count."""
        self.rejections[reason] += 1
        self._changed.set()

    async def until_rejected(self, count: int) -> None:
        """Wait until at least that many connections were rejected."""
        while self.rejections.total() < count:
            self._changed.clear()
            await self._changed.wait()


def make_message(
    payload: Sequence[bytes | bytearray | memoryview] = (),
    *,
    sender: str,
    message_id: str = "message",
    grant_id: str = "grant",
    job_id: str = "job",
    attempt: int = 1,
) -> Message:
    """Return a message of uint8 tensors, one per part of the payload.

    Each part but the last must have a length that is a multiple of 64.
    """
    tensors, offset = [], 0
    for index, part in enumerate(payload):
        shape = (len(part),)
        tensors.append(TensorInfo(f"part{index}", "uint8", shape, (0,), offset, len(part)))
        offset += len(part)
    header = MessageHeader(
        message_id=message_id,
        job_id=job_id,
        attempt=attempt,
        port="dit",
        grant_id=grant_id,
        sender=sender,
        source_stage="encoder",
        source_attempt=attempt,
        tensors=tuple(tensors),
        structure=b"{}",
        nbytes=offset,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    return Message(header, tuple(memoryview(part) for part in payload))
