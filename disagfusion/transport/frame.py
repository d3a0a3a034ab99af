"""What is said on a connection, as bytes.

A frame is a prefix of 24 bytes and a body:

    offset  size  field
         0     4  magic "DFT1"
         4     1  version of the protocol
         5     1  kind
         6     2  zero
         8     4  number of the hand-over on this connection
        12     4  length of the body
        16     8  xxh3_64 over the first 16 bytes and the body

Numbers are little-endian. A `DATA` frame is followed by the payload bytes that its body announces;
their checksums come in the `DIGEST` frame. Nothing here reads more than it was given, and every
length is compared with a bound before anything of that length is made.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

import xxhash

from disagfusion.transport.api import MessageHeader, RefusalReason
from disagfusion.transport.wire import MalformedError, Reader, Writer, read_header, write_header

MAGIC = b"DFT1"
VERSION = 2
MAX_BODY = 4 << 20
MAX_GREETING = 16 << 10
MAX_SEGMENTS = 1 << 16
_PREFIX = struct.Struct("<4sBBHII")
_CHECKSUM = struct.Struct("<Q")
PREFIX_SIZE = _PREFIX.size + _CHECKSUM.size


class Kind(enum.IntEnum):
    """What a frame is for; who sends it."""

    HELLO = 1  # connecting side: who it is
    WELCOME = 2  # accepting side: come in
    HEADER = 3  # sender: a message is offered
    READY = 4  # receiver: admitted, send the payload
    DATA = 5  # sender: payload bytes follow, where the connection carries them
    DIGEST = 6  # sender: the checksums of the payload's segments
    ACK = 7  # receiver: the payload is there and verified
    NACK = 8  # receiver: refused
    BEAT = 9  # either, during a hand-over: still there
    EAGER = 10  # sender: a message is offered, and its payload follows at once


_KINDS = frozenset(kind.value for kind in Kind)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose checksum was right.

    Attributes:
        kind: What it is for.
        stream: Number of the hand-over on this connection, 0 where there is none.
        body: As `decode_…` understands it.
    """

    kind: Kind
    stream: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Hello:
    """How a connection begins, in both directions.

    Attributes:
        incarnation: Of the process that speaks.
        expected: The incarnation that the connecting side wants to talk to.
        token: The secret that came with the receiver's address; empty in a `WELCOME`.
        backend: The backend that speaks.
        greeting: Opaque to everyone but the backend.
    """

    incarnation: str
    expected: str
    token: bytes
    backend: str
    greeting: bytes = b""


@dataclass(frozen=True, slots=True)
class Offer:
    """A message that a sender would like to hand over.

    Attributes:
        header: About the message.
        segments: The lengths into which the payload is divided for transfer and checksum.
        seconds: How long the sender is going to try.
    """

    header: MessageHeader
    segments: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first bytes of a frame, bounds checked but not yet the checksum."""

    kind: Kind
    stream: int
    length: int
    checksum: int
    raw: bytes


def encode(frame: Frame) -> bytes:
    """Return a frame as bytes.

    Raises:
        MalformedError: The body is longer than a receiver would accept.
    """
    if len(frame.body) > MAX_BODY:
        raise MalformedError(f"a body of {len(frame.body)} bytes")
    head = _PREFIX.pack(MAGIC, VERSION, frame.kind, 0, frame.stream, len(frame.body))
    return b"".join((head, _CHECKSUM.pack(_checksum(head, frame.body)), frame.body))


def decode_prefix(raw: bytes, *, max_body: int = MAX_BODY) -> Prefix:
    """Return what the first `PREFIX_SIZE` bytes of a frame say.

    Raises:
        MalformedError: It is not our protocol or version, or the body would be too long.
    """
    if len(raw) != PREFIX_SIZE:
        raise MalformedError(f"a prefix of {len(raw)} bytes")
    magic, version, kind, zero, stream, length = _PREFIX.unpack_from(raw)
    if magic != MAGIC:
        raise MalformedError("not this protocol")
    if version != VERSION:
        raise MalformedError(f"version {version} of the protocol, this is {VERSION}")
    if zero or kind not in _KINDS:
        raise MalformedError("unknown kind of frame")
    if length > max_body:
        raise MalformedError(f"a body of {length} bytes, {max_body} are allowed")
    (checksum,) = _CHECKSUM.unpack_from(raw, _PREFIX.size)
    return Prefix(Kind(kind), stream, length, checksum, bytes(raw[: _PREFIX.size]))


def decode(prefix: Prefix, body: bytes) -> Frame:
    """Return the frame of a prefix and its body.

    Raises:
        MalformedError: Length or checksum are wrong.
    """
    if len(body) != prefix.length or _checksum(prefix.raw, body) != prefix.checksum:
        raise MalformedError("a frame's checksum is wrong")
    return Frame(prefix.kind, prefix.stream, body)


def encode_hello(hello: Hello) -> bytes:
    """Return the body of a `HELLO` or `WELCOME`."""
    writer = Writer()
    writer.text(hello.incarnation)
    writer.text(hello.expected)
    writer.blob(hello.token)
    writer.text(hello.backend)
    writer.blob(hello.greeting)
    return writer.done()


def decode_hello(body: bytes) -> Hello:
    """Return what the body of a `HELLO` or `WELCOME` says.

    Raises:
        MalformedError: It says nothing.
    """
    reader = Reader(body)
    hello = Hello(
        incarnation=reader.text(128),
        expected=reader.text(128),
        token=reader.blob(64),
        backend=reader.text(16),
        greeting=reader.blob(MAX_GREETING),
    )
    reader.end()
    return hello


def encode_offer(offer: Offer) -> bytes:
    """Return the body of a `HEADER`.

    Raises:
        MalformedError: A receiver would refuse it as malformed.
    """
    writer = Writer()
    writer.f64(offer.seconds)
    writer.numbers(offer.segments)
    write_header(writer, offer.header)
    _check_segments(offer.segments, offer.header)
    return writer.done()


def decode_offer(body: bytes) -> Offer:
    """Return what the body of a `HEADER` says.

    Raises:
        MalformedError: It is not consistent or beyond a bound.
    """
    reader = Reader(body)
    seconds = reader.f64()
    segments = reader.numbers(MAX_SEGMENTS)
    header = read_header(reader)
    reader.end()
    if not 0 < seconds < 1e9:
        raise MalformedError("a duration that is none")
    _check_segments(segments, header)
    return Offer(header, segments, seconds)


def encode_digests(digests: tuple[int, ...]) -> bytes:
    """Return the body of a `DIGEST`: the xxh3_64 of each segment."""
    writer = Writer()
    writer.numbers(digests)
    return writer.done()


def decode_digests(body: bytes) -> tuple[int, ...]:
    """Return the xxh3_64 of each segment.

    Raises:
        MalformedError: The body is something else.
    """
    reader = Reader(body)
    digests = reader.numbers(MAX_SEGMENTS)
    reader.end()
    return digests


def encode_data(index: int, nbytes: int) -> bytes:
    """Return the body of a `DATA`, which the bytes of one segment follow."""
    return struct.pack("<IQ", index, nbytes)


def decode_data(body: bytes) -> tuple[int, int]:
    """Return the index of the segment that follows and its length.

    Raises:
        MalformedError: The body is something else.
    """
    if len(body) != 12:
        raise MalformedError("a data frame that announces nothing")
    index, nbytes = struct.unpack("<IQ", body)
    return index, nbytes


def encode_refusal(reason: RefusalReason, detail: str) -> bytes:
    """Return the body of a `NACK`; the detail is cut to 500 characters."""
    writer = Writer()
    writer.text(reason.value)
    writer.text(detail[:500])
    return writer.done()


def decode_refusal(body: bytes) -> tuple[RefusalReason, str]:
    """Return why something was refused.

    Raises:
        MalformedError: The body is something else.
    """
    reader = Reader(body)
    reason, detail = reader.text(64), reader.text(2000)
    reader.end()
    try:
        return RefusalReason(reason), detail
    except ValueError:
        raise MalformedError("unknown reason of a refusal") from None


def _check_segments(segments: tuple[int, ...], header: MessageHeader) -> None:
    if 0 in segments or sum(segments) != header.nbytes:
        raise MalformedError("the segments are not the payload")


def _checksum(head: bytes, body: bytes) -> int:
    return xxhash.xxh3_64_intdigest(head + body)
