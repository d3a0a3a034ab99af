"""One hand-over as its sender sees it: frames in, what to do next out.

    OFFERED ──READY──► SENDING ──payload gone──► SENT ──ACK──► delivered
       │└───────eager: payload gone────────────────►│
       └───────────────────┴────────────────────────┴──NACK──► refused

No I/O and no clock.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from disagfusion.transport.api import Message, RefusalReason, RefusedError
from disagfusion.transport.frame import (
    MAX_SEGMENTS,
    Frame,
    Kind,
    Offer,
    decode_refusal,
    encode_digests,
    encode_offer,
)
from disagfusion.transport.wire import MalformedError


class Phase(enum.Enum):
    """How far a hand-over has come."""

    OFFERED = enum.auto()
    SENDING = enum.auto()
    SENT = enum.auto()
    DELIVERED = enum.auto()


class Outgoing:
    """A message on its way.

    Args:
        message: Header and payload.
        stream: Number of the hand-over on its connection.
        segment_bytes: The largest piece of the payload that is moved at once.
        seconds: How long the sender is going to try.
        eager_bytes: A payload of at most so many bytes is sent without waiting for `READY`.

    Raises:
        RefusedError: The message is not one that any receiver would take (`MALFORMED`).
    """

    def __init__(
        self,
        message: Message,
        *,
        stream: int,
        segment_bytes: int,
        seconds: float,
        eager_bytes: int = -1,
    ) -> None:
        self.phase = Phase.OFFERED
        self.eager = message.header.nbytes <= eager_bytes
        self._unwanted = False
        self.stream = stream
        self.segments = split(message.buffers, segment_bytes)
        lengths = tuple(segment.nbytes for segment in self.segments)
        if len(lengths) > MAX_SEGMENTS:
            raise RefusedError(RefusalReason.TOO_LARGE, f"{len(lengths)} segments")
        try:
            body = encode_offer(Offer(message.header, lengths, seconds))
        except ValueError as error:
            raise RefusedError(RefusalReason.MALFORMED, str(error)) from error
        self.offer = Frame(Kind.EAGER if self.eager else Kind.HEADER, stream, body)

    @property
    def stray(self) -> bool:
        """Whether some of the payload may have gone where nobody has asked for it."""
        return self.phase is Phase.SENDING or self._unwanted

    def answered(self, frame: Frame) -> None:
        """Take a frame from the receiver; `phase` tells what it means.

        Raises:
            RefusedError: The receiver said no.
            MalformedError: The frame does not belong here.
        """
        if frame.stream != self.stream:
            raise MalformedError("an answer to something else")
        if frame.kind is Kind.NACK:
            refusal = RefusedError(*decode_refusal(frame.body))
            self._unwanted = self.eager and refusal.reason is not RefusalReason.CHECKSUM
            raise refusal
        if frame.kind is Kind.READY and self.phase is Phase.OFFERED and not self.eager:
            self.phase = Phase.SENDING
        elif frame.kind is Kind.ACK and self.phase is Phase.SENT:
            self.phase = Phase.DELIVERED
        else:
            raise MalformedError(f"{frame.kind.name} while {self.phase.name}")

    def sent(self, digests: Sequence[int]) -> Frame:
        """Take note that the payload has been given to the carrier; return what to say then."""
        if self.phase is not (Phase.OFFERED if self.eager else Phase.SENDING):
            raise MalformedError(f"a payload went out while {self.phase.name}")
        self.phase = Phase.SENT
        return Frame(Kind.DIGEST, self.stream, encode_digests(tuple(digests)))


def split(buffers: Sequence[memoryview], segment_bytes: int) -> tuple[memoryview, ...]:
    """Return the payload as pieces of at most `segment_bytes`, none of them empty."""
    segments = []
    for buffer in buffers:
        if not buffer.nbytes:
            continue
        flat = buffer.cast("B")
        segments += [flat[at : at + segment_bytes] for at in range(0, len(flat), segment_bytes)]
    return tuple(segments)
