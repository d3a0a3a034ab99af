"""A digest of what was asked for, the same however the request was encoded."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

Value = None | bool | int | float | str | bytes | Sequence["Value"] | Mapping[str, "Value"]
"""What a request consists of."""


def fingerprint(content: Mapping[str, Value]) -> str:
    """Return the SHA-256 of a canonical encoding, in lower-case hexadecimal.

    Two contents have the same fingerprint exactly if they are equal, types included: 1, 1.0 and
    True differ, and so do 0.0 and -0.0. The order of a mapping's keys does not matter. Leave out
    what the client did not set, so that a default that changes does not make a repeated
    submission another one; include the tenant, adapters and images.

    Raises:
        TypeError: A value is of another type.
    """
    digest = hashlib.sha256()
    for chunk in _encode(content):
        digest.update(chunk)
    return digest.hexdigest()


def _encode(value: Value) -> list[bytes]:
    """Encode with a type tag and a length before everything of variable size: no two collide."""
    match value:
        case None:
            return [b"n"]
        case bool():
            return [b"t" if value else b"f"]
        case int():
            return _sized(b"i", str(value).encode())
        case float():
            return [b"d", struct.pack(">d", value)]
        case str():
            return _sized(b"s", value.encode())
        case bytes():
            return _sized(b"b", value)
        case Mapping():
            chunks = [b"m", struct.pack(">Q", len(value))]
            for key in sorted(value):
                chunks += _sized(b"s", key.encode())
                chunks += _encode(value[key])
            return chunks
        case Sequence():
            chunks = [b"l", struct.pack(">Q", len(value))]
            for item in value:
                chunks += _encode(item)
            return chunks
    raise TypeError(f"cannot take the fingerprint of a {type(value).__name__}")


def _sized(tag: bytes, content: bytes) -> list[bytes]:
    return [tag, struct.pack(">Q", len(content)), content]
