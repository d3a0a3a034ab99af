"""The values in a frame's body, and the header of a message among them.

Numbers are little-endian; a text is its length in two bytes and UTF-8, a blob its length in four
bytes and the bytes. Whatever a `Reader` returns was compared with a bound first.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod

from disagfusion.transport.api import MessageHeader, TensorInfo
from disagfusion.transport.arena import ALIGNMENT
from disagfusion.transport.dtypes import BY_CODE, BY_NAME

MAX_DIMENSIONS = 8
MAX_TENSORS = 4096
MAX_STRUCTURE = 1 << 20
MAX_IDENTIFIER = 64
MAX_NAME = 256
# Far beyond any payload, far below an overflow of what is computed with it.
MAX_BYTES = 1 << 48
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_F64 = struct.Struct("<d")


class MalformedError(ValueError):
    """Bytes that no honest peer of this version sends."""


class Writer:
    """Appends values to a body."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u8(self, value: int) -> None:
        """Append a number of one byte."""
        self._parts.append(value.to_bytes(1, "little"))

    def u32(self, value: int) -> None:
        """Append a number of four bytes."""
        self._parts.append(_U32.pack(value))

    def u64(self, value: int) -> None:
        """Append a number of eight bytes."""
        self._parts.append(_U64.pack(value))

    def f64(self, value: float) -> None:
        """Append a floating point number of eight bytes."""
        self._parts.append(_F64.pack(value))

    def text(self, value: str) -> None:
        """Append a text of at most 65,535 bytes."""
        raw = value.encode()
        self._parts += (_U16.pack(len(raw)), raw)

    def blob(self, value: bytes) -> None:
        """Append bytes with their length."""
        self._parts += (_U32.pack(len(value)), value)

    def numbers(self, values: Sequence[int]) -> None:
        """Append numbers of eight bytes with their count."""
        self._parts += (_U32.pack(len(values)), struct.pack(f"<{len(values)}Q", *values))

    def done(self) -> bytes:
        """Return the body."""
        return b"".join(self._parts)


class Reader:
    """Takes values from a body, in the order in which they were written.

    Every method raises `MalformedError` where the body is too short or a bound is exceeded.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def u8(self) -> int:
        """Take a number of one byte."""
        return self._take(1)[0]

    def u32(self) -> int:
        """Take a number of four bytes."""
        return int(_U32.unpack(self._take(4))[0])

    def u64(self) -> int:
        """Take a number of eight bytes."""
        return int(_U64.unpack(self._take(8))[0])

    def f64(self) -> float:
        """Take a floating point number."""
        return float(_F64.unpack(self._take(8))[0])

    def text(self, limit: int) -> str:
        """Take a text of at most `limit` bytes."""
        try:
            return self._take(self._bounded(_U16.unpack(self._take(2))[0], limit)).decode()
        except UnicodeDecodeError:
            raise MalformedError("a text that is not UTF-8") from None

    def blob(self, limit: int) -> bytes:
        """Take at most `limit` bytes."""
        return self._take(self._bounded(self.u32(), limit))

    def numbers(self, limit: int) -> tuple[int, ...]:
        """Take at most `limit` numbers."""
        count = self._bounded(self.u32(), limit)
        return struct.unpack(f"<{count}Q", self._take(8 * count))

    def end(self) -> None:
        """Expect that nothing is left."""
        if self._at != len(self._body):
            raise MalformedError("a body goes on after its end")

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._body):
            raise MalformedError("a body ends too early")
        taken = self._body[self._at : end]
        self._at = end
        return taken

    @staticmethod
    def _bounded(value: int, limit: int) -> int:
        if value > limit:
            raise MalformedError(f"{value} where at most {limit} are allowed")
        return value


def write_header(writer: Writer, header: MessageHeader) -> None:
    """Append a header.

    Raises:
        MalformedError: It is not consistent or beyond a bound.
    """
    check_header(header)
    for text in (header.message_id, header.job_id, header.port, header.grant_id):
        writer.text(text)
    for text in (header.sender, header.source_stage, header.traceparent):
        writer.text(text)
    writer.u32(header.attempt)
    writer.u32(header.source_attempt)
    writer.u64(header.nbytes)
    writer.blob(header.structure)
    writer.u32(len(header.tensors))
    for info in header.tensors:
        writer.text(info.name)
        writer.u8(BY_NAME[info.dtype].code)
        writer.u8(len(info.shape))
        for size in info.shape:
            writer.u64(size)
        for dimension in info.stride_order:
            writer.u8(dimension)
        writer.u64(info.offset)
        writer.u64(info.nbytes)


def read_header(reader: Reader) -> MessageHeader:
    """Take a header.

    Raises:
        MalformedError: It is not consistent or beyond a bound.
    """
    message_id, job_id, port, grant_id = (reader.text(MAX_IDENTIFIER) for _ in range(4))
    sender, source_stage, traceparent = (reader.text(2 * MAX_IDENTIFIER) for _ in range(3))
    attempt, source_attempt, nbytes = reader.u32(), reader.u32(), reader.u64()
    structure = reader.blob(MAX_STRUCTURE)
    count = reader.u32()
    if count > MAX_TENSORS:
        raise MalformedError(f"{count} tensors, {MAX_TENSORS} are allowed")
    header = MessageHeader(
        message_id=message_id,
        job_id=job_id,
        attempt=attempt,
        port=port,
        grant_id=grant_id,
        sender=sender,
        source_stage=source_stage,
        source_attempt=source_attempt,
        tensors=tuple(_read_tensor(reader) for _ in range(count)),
        structure=structure,
        nbytes=nbytes,
        traceparent=traceparent,
    )
    check_header(header)
    return header


def check_header(header: MessageHeader) -> None:
    """Check all that can be known about a header without knowing the receiver.

    Raises:
        MalformedError: It is not consistent or beyond a bound.
    """
    identifiers = (header.message_id, header.job_id, header.port, header.grant_id)
    others = (header.sender, header.source_stage, header.traceparent)
    if not header.message_id or any(len(t.encode()) > MAX_IDENTIFIER for t in identifiers):
        raise MalformedError("an identifier is empty or too long")
    if any(len(text.encode()) > 2 * MAX_IDENTIFIER for text in others):
        raise MalformedError("a text in the header is too long")
    if not (0 <= header.attempt < 1 << 32 and 0 <= header.source_attempt < 1 << 32):
        raise MalformedError("an attempt that is none")
    if len(header.structure) > MAX_STRUCTURE or len(header.tensors) > MAX_TENSORS:
        raise MalformedError("too much structure or too many tensors")
    if not 0 <= header.nbytes <= MAX_BYTES:
        raise MalformedError("a payload that is too large")
    end = 0
    for info in header.tensors:
        check_tensor(info)
        if info.offset < end or info.offset + info.nbytes > header.nbytes:
            raise MalformedError("a tensor outside the payload or within another")
        end = info.offset + info.nbytes
    if len({info.name for info in header.tensors}) != len(header.tensors):
        raise MalformedError("two tensors of one name")


def check_tensor(info: TensorInfo) -> None:
    """Check a tensor's description in itself.

    Raises:
        MalformedError: It is not consistent or beyond a bound.
    """
    dtype = BY_NAME.get(info.dtype)
    if dtype is None:
        raise MalformedError("an element type that is not on the list")
    if len(info.name.encode()) > MAX_NAME or len(info.shape) > MAX_DIMENSIONS:
        raise MalformedError("a tensor's name or number of dimensions is beyond the bound")
    if sorted(info.stride_order) != list(range(len(info.shape))):
        raise MalformedError("a stride order that is no permutation of the dimensions")
    # Each is bounded, so the product of eight is an exact Python integer of modest size.
    if any(not 0 <= size <= MAX_BYTES for size in info.shape):
        raise MalformedError("a dimension that is beyond the bound")
    if prod(info.shape) * dtype.itemsize != info.nbytes:
        raise MalformedError("a tensor's shape and length do not fit")
    if info.offset % ALIGNMENT or not 0 <= info.offset <= MAX_BYTES:
        raise MalformedError("a tensor's offset is not aligned")


def _read_tensor(reader: Reader) -> TensorInfo:
    name = reader.text(MAX_NAME)
    dtype = BY_CODE.get(reader.u8())
    if dtype is None:
        raise MalformedError("an element type that is not on the list")
    dimensions = reader.u8()
    if dimensions > MAX_DIMENSIONS:
        raise MalformedError(f"{dimensions} dimensions, {MAX_DIMENSIONS} are allowed")
    return TensorInfo(
        name=name,
        dtype=dtype.name,
        shape=tuple(reader.u64() for _ in range(dimensions)),
        stride_order=tuple(reader.u8() for _ in range(dimensions)),
        offset=reader.u64(),
        nbytes=reader.u64(),
    )
