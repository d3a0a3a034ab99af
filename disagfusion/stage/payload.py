"""A stage's output as bytes in shared memory, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from disagfusion.errors import DataLossError
from disagfusion.pipeline import values
from disagfusion.pipeline.tensors import byte_view, dtype_name, from_bytes, stride_order
from disagfusion.transport.api import TensorInfo
from disagfusion.transport.arena import ALIGNMENT


@dataclass(frozen=True, slots=True)
class Payload:
    """What is to be written.

    Attributes:
        nbytes: In all.
        tensors: Places and forms.
        structure: The values that are not tensors.
        parts: Bytes and where they go; tensors may be on any device.
    """

    nbytes: int
    tensors: tuple[TensorInfo, ...] = ()
    structure: bytes = b""
    parts: tuple[tuple[int, torch.Tensor], ...] = ()

    @classmethod
    def of_tree(cls, tree: Mapping[str, object]) -> Payload:
        """Lay out the values that a stage hands over.

        Raises:
            InternalError: A value is of a type that may not cross between stages.
        """
        named, structure = values.flatten(tree)
        infos, parts, end = [], [], 0
        for entry in named:
            flat = byte_view(entry.tensor)
            infos.append(
                TensorInfo(
                    name=entry.name,
                    dtype=dtype_name(entry.tensor.dtype),
                    shape=tuple(entry.tensor.shape),
                    stride_order=stride_order(entry.tensor),
                    offset=end,
                    nbytes=flat.numel(),
                )
            )
            parts.append((end, flat))
            end += -(-flat.numel() // ALIGNMENT) * ALIGNMENT
        return cls(end, tuple(infos), structure, tuple(parts))

    @classmethod
    def of_files(cls, files: Sequence[bytes]) -> Payload:
        """Lay out files one after the other."""
        parts, end = [], 0
        for content in filter(None, files):
            parts.append((end, torch.frombuffer(bytearray(content), dtype=torch.uint8)))
            end += len(content)
        return cls(end, parts=tuple(parts))

    def write(self, memory: memoryview) -> None:
        """Write everything; gaps become zero, so that equal outputs are equal bytes."""
        if not self.nbytes:
            return
        target = torch.frombuffer(memory, dtype=torch.uint8)
        end = 0
        for offset, part in self.parts:
            target[end:offset].zero_()
            end = offset + part.numel()
            target[offset:end].copy_(part)
        target[end : self.nbytes].zero_()


def read_tree(
    memory: memoryview, tensors: Sequence[TensorInfo], structure: bytes
) -> dict[str, Any]:
    """Return the values that a stage handed over; tensors are views of the memory.

    Raises:
        DataLossError: They do not fit the memory or each other.
    """
    named = []
    for info in tensors:
        if info.offset < 0 or info.nbytes < 0 or info.offset + info.nbytes > memory.nbytes:
            raise DataLossError(f"tensor {info.name[:64]!r} lies outside", reason="DAMAGED_VALUES")
        part = memory[info.offset : info.offset + info.nbytes]
        tensor = from_bytes(part, info.dtype, info.shape, info.stride_order)
        named.append(values.NamedTensor(info.name, tensor))
    return values.unflatten(named, structure)
