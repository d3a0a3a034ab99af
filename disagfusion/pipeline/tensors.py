"""Tensors as bytes, with the order of their dimensions in memory.

The bytes of a dense tensor, together with dtype, shape and stride order, are the tensor. A
channels-last tensor must arrive channels-last: made contiguous it is equal, but the next
convolution takes another path and rounds differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from disagfusion.errors import DataLossError

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]  # Python 3.12 and later


def stride_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the dimensions from the outermost to the innermost in memory.

    Dimensions of length one are placed such that `from_bytes` restores the very strides of a
    contiguous or channels-last tensor.
    """
    sizes, strides = tensor.shape, tensor.stride()
    return tuple(sorted(range(tensor.dim()), key=lambda d: (-strides[d], -sizes[d], d)))


def dense_strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of a dense tensor with this order of dimensions."""
    strides = [0] * len(shape)
    step = 1
    for dimension in reversed(order):
        strides[dimension] = step
        step *= max(shape[dimension], 1)
    return tuple(strides)


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor itself if its memory has no gaps and no overlaps, else such a copy.

    A copy keeps the order of the dimensions in memory.
    """
    order = stride_order(tensor)
    strides = dense_strides(tensor.shape, order)
    relevant = [d for d, size in enumerate(tensor.shape) if size > 1]
    if tensor.numel() == 0 or all(tensor.stride(d) == strides[d] for d in relevant):
        return tensor.resolve_conj().resolve_neg()
    copy = torch.empty_strided(
        tuple(tensor.shape), strides, dtype=tensor.dtype, device=tensor.device
    )
    return copy.copy_(tensor)


def dtype_name(dtype: torch.dtype) -> str:
    """Return torch's name without the prefix, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def dtype_from_name(name: str) -> torch.dtype:
    """Return the dtype of that name.

    Raises:
        DataLossError: torch has no dtype of that name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise DataLossError(f"unknown dtype {name[:32]!r}", reason="DAMAGED_VALUES")
    return dtype


def byte_view(tensor: torch.Tensor) -> torch.Tensor:
    """Return the memory of a dense tensor as a one-dimensional uint8 tensor, without a copy."""
    flat = tensor.permute(stride_order(tensor)).reshape(-1)
    return flat.view(torch.uint8) if flat.numel() else flat.new_empty(0, dtype=torch.uint8)


def from_bytes(
    buffer: Buffer | memoryview | bytearray, dtype: str, shape: Sequence[int], order: Sequence[int]
) -> torch.Tensor:
    """Return a tensor over a buffer, without a copy.

    Args:
        buffer: Exactly the tensor's bytes.
        dtype: As `dtype_name` returns it.
        shape: The shape.
        order: As `stride_order` returns it.

    Raises:
        DataLossError: The buffer does not have the size that dtype and shape ask for, or the
            order is not a permutation of the dimensions.
    """
    kind = dtype_from_name(dtype)
    if sorted(order) != list(range(len(shape))) or any(size < 0 for size in shape):
        raise DataLossError("a tensor's shape and stride order do not fit", reason="DAMAGED_VALUES")
    count = 1
    for size in shape:
        count *= size
    view = memoryview(buffer)
    if view.nbytes != count * kind.itemsize:
        raise DataLossError(
            f"a tensor of {count} × {dtype} came with {view.nbytes} bytes", reason="DAMAGED_VALUES"
        )
    if count == 0:
        return torch.empty_strided(tuple(shape), dense_strides(shape, order), dtype=kind)
    flat = torch.frombuffer(view, dtype=kind)
    return flat.as_strided(tuple(shape), dense_strides(shape, order))
