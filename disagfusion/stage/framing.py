"""Messages between front and engine: each behind its length, four bytes in network order. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message

# A request with its images, which gRPC bounds at 64 MiB, and what surrounds it.
MAX_FRAME_BYTES = 80 << 20

_LENGTH = struct.Struct("!I")
M = TypeVar("M", bound=Message)


class FramingError(Exception):
    """The other side does not speak this protocol."""


def encode(message: Message) -> bytes:
    """Return a message as it goes over the socket.

    Raises:
        FramingError: It is too large.
    """
    body = message.SerializeToString()
    if len(body) > MAX_FRAME_BYTES:
        raise FramingError(f"a message of {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


class Decoder(Generic[M]):
    """Puts messages together from what arrives.

    Args:
        kind: Their class.
    """

    def __init__(self, kind: type[M]) -> None:
        self._kind = kind
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """Take what has arrived; yield what is complete.

        Raises:
            FramingError: What arrived is not a message.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise FramingError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                yield self._kind.FromString(body)
            except DecodeError as error:
                raise FramingError("not a message") from error
