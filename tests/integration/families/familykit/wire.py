"""A hand-over as a file: the structure, a line per tensor, and the tensors' bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from disagfusion.pipeline.tensors import byte_view, dtype_name, from_bytes, stride_order
from disagfusion.pipeline.values import NamedTensor, flatten, unflatten


def write(path: str, values: dict[str, Any]) -> int:
    tensors, structure = flatten(values)
    described = [
        [e.name, dtype_name(e.tensor.dtype), list(e.tensor.shape), list(stride_order(e.tensor))]
        for e in tensors
    ]
    payload = b"".join(byte_view(e.tensor).numpy().tobytes() for e in tensors)
    head = json.dumps(described).encode()
    sizes = [len(head), len(structure)]
    Path(path).write_bytes(json.dumps(sizes).encode() + b"\n" + head + structure + payload)
    return len(payload)


def read(path: str) -> dict[str, Any]:
    first, rest = Path(path).read_bytes().split(b"\n", 1)
    head_size, structure_size = json.loads(first)
    described = json.loads(rest[:head_size])
    structure = rest[head_size : head_size + structure_size]
    payload = bytearray(rest[head_size + structure_size :])
    tensors, offset = [], 0
    for name, dtype, shape, order in described:
        size = _size(dtype, shape)
        tensors.append(
            NamedTensor(name, from_bytes(payload[offset : offset + size], dtype, shape, order))
        )
        offset += size
    return unflatten(tensors, structure)


def _size(dtype: str, shape: list[int]) -> int:
    import math

    from disagfusion.pipeline.tensors import dtype_from_name

    return math.prod(shape) * dtype_from_name(dtype).itemsize
