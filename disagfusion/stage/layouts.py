"""Tensor layouts between `TensorInfo` and the protocol of front and engine. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from disagfusion.transport.api import TensorInfo
from disagfusion.v1 import engine_pb2


def to_layouts(tensors: Iterable[TensorInfo]) -> list[engine_pb2.TensorLayout]:
    """Return layouts as messages."""
    return [
        engine_pb2.TensorLayout(
            name=info.name,
            dtype=info.dtype,
            shape=info.shape,
            stride_order=info.stride_order,
            offset=info.offset,
            size_bytes=info.nbytes,
        )
        for info in tensors
    ]


def from_layouts(layouts: Iterable[engine_pb2.TensorLayout]) -> tuple[TensorInfo, ...]:
    """Return layouts from messages."""
    return tuple(
        TensorInfo(
            name=layout.name,
            dtype=layout.dtype,
            shape=tuple(layout.shape),
            stride_order=tuple(layout.stride_order),
            offset=layout.offset,
            nbytes=layout.size_bytes,
        )
        for layout in layouts
    )
