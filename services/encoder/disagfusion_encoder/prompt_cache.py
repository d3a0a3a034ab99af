"""The encoder's memory of what it has encoded before."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Encoding:
    """A finished hand-over of the encoder, as it goes to the data plane.

    Attributes:
        payload: The tensors' bytes.
        layout: The tensors' places and forms; opaque here.
        structure: The values that are not tensors.
    """

    payload: bytes
    layout: Any
    structure: bytes

    @property
    def nbytes(self) -> int:
        """Bytes that count against the cache's bound."""
        return len(self.payload) + len(self.structure)


class PromptCache:
    """Least recently used encodings, bounded in bytes.

    Args:
        capacity: Bytes; 0 keeps nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[str, Encoding] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes in the cache."""
        return self._nbytes

    def __len__(self) -> int:
        """Number of encodings."""
        return len(self._entries)

    def get(self, key: str) -> Encoding | None:
        """Return what was stored under `key`, or None, and note that it was used."""
        encoding = self._entries.get(key)
        if encoding is not None:
            self._entries.move_to_end(key)
        return encoding

    def put(self, key: str, encoding: Encoding) -> None:
        """Store an encoding in the place of the least recently used; one too large is not kept."""
        if encoding.nbytes > self._capacity:
            return
        self._drop(key)
        while self._nbytes + encoding.nbytes > self._capacity:
            self._drop(next(iter(self._entries)))
        self._entries[key] = encoding
        self._nbytes += encoding.nbytes

    def _drop(self, key: str) -> None:
        dropped = self._entries.pop(key, None)
        if dropped is not None:
            self._nbytes -= dropped.nbytes


def cache_key(version: str, request: Mapping[str, Any], tenant: str = "") -> str | None:
    """Return what an encoding depends on, as a digest; None where it must not be cached.

    Everything in the request but the seed counts, since which of it an encoder reads is the
    family's affair. An encoder draws noise only where there are images.

    Args:
        version: Of the model and the software.
        request: Parameters by diffusers' names; images as bytes. With images nothing is cached:
            they rarely recur and are large to compare.
        tenant: Who asks; by how long it took, nobody sees what others have asked before.
    """
    if any(_holds_bytes(value) for value in request.values()):
        return None
    relevant = {name: value for name, value in request.items() if name != "seed"}
    text = json.dumps(
        [version, tenant, relevant], sort_keys=True, ensure_ascii=True, allow_nan=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_bytes(item) for item in value)
    return isinstance(value, (bytes, bytearray, memoryview))
