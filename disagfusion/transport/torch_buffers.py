"""Tensors to payloads and back; the only module of the transport that knows torch.

It runs in the engine. A payload is the tensors' bytes, each dense in its own order of dimensions,
each at an offset that is a multiple of 64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from disagfusion.pipeline.tensors import (
    byte_view,
    dense,
    dense_strides,
    dtype_from_name,
    dtype_name,
    stride_order,
)
from disagfusion.transport.api import TensorInfo
from disagfusion.transport.arena import ALIGNMENT
from disagfusion.transport.wire import check_tensor


def describe(tensors: Mapping[str, torch.Tensor]) -> tuple[list[TensorInfo], int]:
    """Plan a payload.

    Args:
        tensors: By name; any dense layout, any device. Sparse tensors have no such form.

    Returns:
        The tensors' places in the payload, in the mapping's order, and the payload's length in
        bytes.

    Raises:
        ValueError: A tensor cannot be sent: its layout is not strided, or it has more than eight
            dimensions or an element type that is not on the wire's list.
    """
    infos, offset = [], 0
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided:
            raise ValueError(f"{name}: a tensor with layout {tensor.layout} cannot be sent")
        info = TensorInfo(
            name=name,
            dtype=dtype_name(tensor.dtype),
            shape=tuple(tensor.shape),
            stride_order=stride_order(tensor),
            offset=offset,
            nbytes=tensor.numel() * tensor.element_size(),
        )
        check_tensor(info)
        infos.append(info)
        offset += -(-info.nbytes // ALIGNMENT) * ALIGNMENT
    return infos, offset


def copy_into(
    tensors: Mapping[str, torch.Tensor], buffer: memoryview, infos: Sequence[TensorInfo]
) -> None:
    """Copy tensors to their places in a payload.

    Returns when the bytes are there, for tensors on a GPU too. The copy from a GPU is as fast as
    the buffer allows: page-locked memory is copied to directly.

    Args:
        tensors: As given to `describe`.
        buffer: Writable, at least as long as `describe` said.
        infos: As `describe` returned them.
    """
    payload = torch.frombuffer(buffer, dtype=torch.uint8) if buffer.nbytes else None
    devices = set()
    for info in infos:
        if not info.nbytes or payload is None:
            continue
        source = dense(tensors[info.name])
        target = payload[info.offset : info.offset + info.nbytes]
        target.copy_(byte_view(source), non_blocking=True)
        devices.add(source.device)
    for device in devices:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)


def views(buffer: memoryview, infos: Sequence[TensorInfo]) -> dict[str, torch.Tensor]:
    """Return the tensors of a payload, without a copy.

    The tensors share the buffer's memory: they are valid while it is, and must not be written to.
    `tensor.to(device)` brings one to a GPU.

    Args:
        buffer: The payload, aligned to 64 bytes. torch wants it writable though nothing writes.
        infos: The tensors' places.

    Raises:
        ValueError: A place is outside the payload, or the description is not consistent.
    """
    payload = torch.frombuffer(buffer, dtype=torch.uint8) if buffer.nbytes else None
    result = {}
    for info in infos:
        check_tensor(info)
        dtype = dtype_from_name(info.dtype)
        strides = dense_strides(info.shape, info.stride_order)
        if not info.nbytes:
            result[info.name] = torch.empty_strided(info.shape, strides, dtype=dtype)
            continue
        if payload is None or info.offset + info.nbytes > buffer.nbytes:
            raise ValueError(f"{info.name}: outside the payload")
        flat = payload[info.offset : info.offset + info.nbytes].view(dtype)
        result[info.name] = flat.as_strided(info.shape, strides, flat.storage_offset())
    return result
