"""What moves tensors from one stage's front to another's, whatever carries them.

A sender calls `Transport.send` with a `Message`; the receiving side's `Inbox` decides whether to
admit it, says where the bytes go, and is told once they are there and verified. `send` returns
after the receiver's acknowledgement, so a returned `Delivery` means that the receiver has the
bytes and has checked them.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a receiver can be reached.

    Attributes:
        backend: The backend that understands `data`: "ucx", "tcp" or "inproc".
        incarnation: The receiver's incarnation; caches of connections are keyed by it.
        data: Opaque to everyone but the backend.
    """

    backend: str
    incarnation: str
    data: bytes


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's place and form within a message.

    Attributes:
        name: Path of the value in the hand-over, such as "prompt_embeds".
        dtype: torch's name without the prefix: "float32", "bfloat16", "float8_e4m3fn", …
        shape: Logical shape.
        stride_order: The dimensions from the outermost to the innermost in memory: (0, 1, 2, 3)
            for a contiguous tensor, (0, 2, 3, 1) for a channels-last one. The bytes are dense.
        offset: Of the first byte, from the start of the payload; a multiple of 64.
        nbytes: Length in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    stride_order: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class MessageHeader:
    """All that is said about a hand-over before its payload.

    Attributes:
        message_id: Unique within the sender's incarnation; at most 64 bytes of UTF-8.
        job_id: The job.
        attempt: The receiving assignment's attempt.
        port: The receiver's input port, the receiving stage's name.
        grant_id: The right to fill one slot once, issued by the receiver.
        sender: The sender's incarnation.
        source_stage: The stage that produced the output.
        source_attempt: The attempt in which it was produced.
        tensors: The tensors in the payload.
        structure: The values that are not tensors, as `pipeline.values.flatten` encodes them.
        nbytes: Length of the payload in bytes.
        traceparent: W3C trace context, may be empty.
    """

    message_id: str
    job_id: str
    attempt: int
    port: str
    grant_id: str
    sender: str
    source_stage: str
    source_attempt: int
    tensors: tuple[TensorInfo, ...]
    structure: bytes
    nbytes: int
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A header and the memory that holds the payload.

    The payload is the concatenation of `buffers`; the memory must stay as it is until `send`
    has returned or raised.
    """

    header: MessageHeader
    buffers: Sequence[memoryview] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An acknowledged hand-over.

    Attributes:
        seconds: From the first byte offered to the acknowledgement.
        nbytes: Payload bytes.
        transport: What carried it, such as "ucx/shm", "ucx/tcp", "tcp", "inproc".
    """

    seconds: float
    nbytes: int
    transport: str


class RefusalReason(enum.StrEnum):
    """Why a receiver would not take a message."""

    UNKNOWN_GRANT = "unknown_grant"
    STALE = "stale"
    TOO_LARGE = "too_large"
    CHECKSUM = "checksum"
    MALFORMED = "malformed"
    CLOSING = "closing"


class TransportError(Exception):
    """A hand-over did not take place. Safe to repeat with a fresh grant."""


class RefusedError(TransportError):
    """The receiver refused the message.

    Args:
        reason: Why, for programs.
        detail: Why, for people.
    """

    def __init__(self, reason: RefusalReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class PeerLostError(TransportError):
    """The peer went away or fell silent, or the deadline passed, before it acknowledged."""


class Inbox(Protocol):
    """The receiving side, a stage's front implements it. Called in the event loop; never blocks."""

    def admit(self, header: MessageHeader) -> memoryview:
        """Return writable memory of `header.nbytes` bytes for the payload.

        Called before any payload byte is accepted and after the header's own bounds were checked.

        Raises:
            RefusedError: The grant is unknown or used, or the message is stale or too large.
        """

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        """Take note that the payload is in its memory, checksum verified; the ack follows.

        Args:
            header: As admitted.
            seconds: From the admitted header to the verified payload.
        """

    def dropped(self, header: MessageHeader, reason: str) -> None:
        """Take note that an admitted message will not arrive; its memory is free again."""


class Transport(ABC):
    """One backend, bound to one `Inbox`; use as an asynchronous context manager."""

    backend: str

    @property
    @abstractmethod
    def address(self) -> PeerAddress:
        """Where others send to; valid once started."""

    @abstractmethod
    async def start(self) -> None:
        """Open for senders.

        Raises:
            TransportError: The backend cannot run here; the message says what is missing.
        """

    @abstractmethod
    async def send(
        self,
        peer: PeerAddress,
        message: Message,
        *,
        timeout: float,  # noqa: ASYNC109  # the backend must act on it, not only be cancelled
    ) -> Delivery:
        """Hand a message over and wait for the acknowledgement.

        Args:
            peer: The receiver.
            message: Header and payload.
            timeout: Seconds after which the attempt is given up.

        Raises:
            RefusedError: The receiver said no.
            PeerLostError: The peer is gone, silent, or the time is over.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Give up what is under way, free everything; nothing touches payload memory afterwards."""

    async def __aenter__(self) -> Transport:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close."""
        await self.aclose()
