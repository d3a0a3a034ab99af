"""One connection as its receiving end sees it: events in, frames to answer with out.

    idle ──offer──► RECEIVING ──all segments and their digests──► idle (ACK or NACK)
          └─ NACK ─┘    └──lost──► idle (dropped)

No I/O and no clock. Whoever drives it moves the bytes: after `offered` returned views it fills
them, then reports each segment's checksum. It must call `lost` only when nothing writes to the
views any more, since the inbox may give their memory to someone else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from disagfusion.transport.api import Inbox, MessageHeader, RefusalReason, RefusedError
from disagfusion.transport.frame import Frame, Kind, Offer, encode_refusal
from disagfusion.transport.session import Ledger
from disagfusion.transport.settings import Observer
from disagfusion.transport.wire import MalformedError


@dataclass(slots=True)
class _Incoming:
    header: MessageHeader
    stream: int
    started: float
    deadline: float
    computed: dict[int, int] = field(default_factory=dict)
    announced: tuple[int, ...] | None = None


class Receiver:
    """The receiving end of a connection.

    Args:
        inbox: Admits messages and is told what becomes of them.
        ledger: Of the whole transport.
        sender: The incarnation at the other end.
        observer: Is told outcomes.
        transport: What carries the payload, for the observer.
        max_bytes: Larger payloads are refused.
        max_seconds: The longest that one message may take.
    """

    def __init__(
        self,
        inbox: Inbox,
        ledger: Ledger,
        *,
        sender: str,
        observer: Observer,
        transport: str,
        max_bytes: int,
        max_seconds: float,
    ) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._sender = sender
        self._observer = observer
        self._transport = transport
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._incoming: _Incoming | None = None
        self._views: tuple[memoryview, ...] = ()

    @property
    def busy(self) -> bool:
        """Whether a message is being received."""
        return self._incoming is not None

    @property
    def stream(self) -> int:
        """The number of the hand-over under way, 0 where there is none."""
        return self._incoming.stream if self._incoming else 0

    @property
    def views(self) -> tuple[memoryview, ...]:
        """The memory of each segment of the message under way."""
        return self._views

    def offered(self, stream: int, offer: Offer, now: float) -> Frame:
        """Take an offer.

        Returns:
            `READY`, and `views` is where the segments go; or `NACK`.

        Raises:
            MalformedError: Another message is under way on this connection.
        """
        if self._incoming is not None:
            raise MalformedError("two messages at once")
        header = offer.header
        try:
            memory = self._admit(header)
        except RefusedError as error:
            self._observer.received(self._transport, error.reason.value, header.nbytes, 0.0)
            return _nack(stream, error.reason, error.detail)
        self._views = _split(memory, offer.segments)
        seconds = min(offer.seconds, self._max_seconds)
        self._incoming = _Incoming(header, stream, now, now + seconds)
        return Frame(Kind.READY, stream)

    def segment(self, index: int, digest: int, now: float) -> Frame | None:
        """Take note that a segment is in its memory.

        Returns:
            The answer to the sender, if this was the last thing that was missing.
        """
        incoming = self._expect()
        incoming.computed[index] = digest
        return self._conclude(now)

    def announced(self, digests: tuple[int, ...], now: float) -> Frame | None:
        """Take the sender's checksums.

        Returns:
            The answer to the sender, if this was the last thing that was missing.

        Raises:
            MalformedError: They do not belong to the message under way, or came before.
        """
        incoming = self._expect()
        if incoming.announced is not None or len(digests) != len(self._views):
            raise MalformedError("checksums of something else")
        incoming.announced = digests
        return self._conclude(now)

    def expired(self, now: float) -> bool:
        """Tell whether the message under way has taken too long."""
        return self._incoming is not None and now >= self._incoming.deadline

    def lost(self, reason: str, now: float) -> None:
        """Give the message under way up, if there is one; nothing may write to it any more."""
        self._drop("lost", reason, now)

    def _admit(self, header: MessageHeader) -> memoryview:
        if header.sender != self._sender:
            raise RefusedError(RefusalReason.MALFORMED, "the header names another sender")
        if header.nbytes > self._max_bytes:
            raise RefusedError(RefusalReason.TOO_LARGE, f"at most {self._max_bytes} bytes")
        self._ledger.enter(header.sender, header.message_id)
        try:
            memory = self._inbox.admit(header)
        except BaseException:
            self._ledger.forget(header.sender, header.message_id)
            raise
        if memory.readonly or memory.nbytes != header.nbytes:
            raise ValueError("the inbox admitted a message into memory that does not fit it")
        return memory.cast("B") if memory.nbytes else memory

    def _conclude(self, now: float) -> Frame | None:
        incoming = self._expect()
        if incoming.announced is None or len(incoming.computed) < len(self._views):
            return None
        computed = tuple(incoming.computed[index] for index in range(len(self._views)))
        if computed != incoming.announced:
            self._drop("checksum", "the checksum is wrong", now)
            return _nack(incoming.stream, RefusalReason.CHECKSUM, "the payload arrived damaged")
        seconds = now - incoming.started
        self._clear()
        self._inbox.delivered(incoming.header, seconds)
        self._observer.received(self._transport, "delivered", incoming.header.nbytes, seconds)
        return Frame(Kind.ACK, incoming.stream)

    def _drop(self, outcome: str, reason: str, now: float) -> None:
        incoming = self._incoming
        if incoming is None:
            return
        header = incoming.header
        self._clear()
        self._ledger.forget(header.sender, header.message_id)
        self._inbox.dropped(header, reason)
        self._observer.received(self._transport, outcome, header.nbytes, now - incoming.started)

    def _clear(self) -> None:
        self._incoming, self._views = None, ()

    def _expect(self) -> _Incoming:
        if self._incoming is None:
            raise MalformedError("no message is under way")
        return self._incoming


def _nack(stream: int, reason: RefusalReason, detail: str) -> Frame:
    return Frame(Kind.NACK, stream, encode_refusal(reason, detail))


def _split(memory: memoryview, segments: tuple[int, ...]) -> tuple[memoryview, ...]:
    views, at = [], 0
    for length in segments:
        views.append(memory[at : at + length])
        at += length
    return tuple(views)
