from __future__ import annotations

import dataclasses
import gc
import mmap
import os

import pytest
import torch

from disagfusion.errors import DataLossError
from disagfusion.stage.layouts import from_layouts, to_layouts
from disagfusion.stage.memory import SharedMemory
from disagfusion.stage.payload import Payload, read_tree

TREE = {
    "prompt_embeds": torch.arange(24, dtype=torch.float32).reshape(1, 4, 6).to(torch.bfloat16),
    "latents": torch.rand(2, 4, 3, 5).to(memory_format=torch.channels_last),
    "mask": torch.tensor([True, False, True]),
    "scalar": torch.tensor(3.5, dtype=torch.float64),
    "empty": torch.empty(0, 3),
    "nested": [torch.ones(3, dtype=torch.int8), (1, "text", None, 2.5)],
    "float8": torch.ones(5).to(torch.float8_e4m3fn),
    "height": 64,
}


def same(left: object, right: object) -> bool:
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor)
        # torch compares no float8; to float32 it is exact.
        narrow = left.is_floating_point() and left.itemsize == 1
        return (
            left.dtype == right.dtype
            and left.stride() == right.stride()
            and torch.equal(*((left.float(), right.float()) if narrow else (left, right)))
        )
    if isinstance(left, list | tuple):
        return all(same(a, b) for a, b in zip(left, right, strict=True))
    return left == right


def test_what_is_written_is_read() -> None:
    payload = Payload.of_tree(TREE)
    memory = memoryview(bytearray(payload.nbytes))
    payload.write(memory)
    layouts = from_layouts(to_layouts(payload.tensors))
    assert layouts == payload.tensors
    tree = read_tree(memory, layouts, payload.structure)
    assert tree.keys() == TREE.keys()
    for name, value in TREE.items():
        assert same(value, tree[name]), name


def test_tensors_are_views_and_aligned() -> None:
    payload = Payload.of_tree(TREE)
    memory = mmap.mmap(-1, payload.nbytes)
    payload.write(memoryview(memory))
    view = memoryview(memory)
    tree = read_tree(view, payload.tensors, payload.structure)
    assert all(info.offset % 64 == 0 for info in payload.tensors)
    assert tree["latents"].data_ptr() % 64 == 0
    offset = next(info.offset for info in payload.tensors if info.name == "mask")
    view[offset] = 0
    assert not tree["mask"][0], "a view of the memory, not a copy"


def test_equal_trees_are_equal_bytes_whatever_was_there_before() -> None:
    payload = Payload.of_tree(TREE)
    first, second = bytearray(payload.nbytes), bytearray(b"\xff" * payload.nbytes)
    payload.write(memoryview(first))
    payload.write(memoryview(second))
    assert first == second


def test_files_lie_one_after_the_other() -> None:
    payload = Payload.of_files([b"one", b"", b"three"])
    memory = bytearray(payload.nbytes)
    payload.write(memoryview(memory))
    assert bytes(memory) == b"onethree"
    Payload.of_files([]).write(memoryview(b""))


@pytest.mark.parametrize("change", [{"offset": 1 << 20}, {"nbytes": 1}, {"dtype": "nonsense"}])
def test_a_layout_that_does_not_fit_is_damage(change: dict[str, object]) -> None:
    payload = Payload.of_tree({"latents": torch.ones(4)})
    memory = memoryview(bytearray(payload.nbytes))
    payload.write(memory)
    wrong = [dataclasses.replace(payload.tensors[0], **change)]  # type: ignore[arg-type]
    with pytest.raises(DataLossError):
        read_tree(memory, wrong, payload.structure)


def test_memory_is_shared_and_bounded() -> None:
    ours = SharedMemory.create(1 << 16)
    theirs = SharedMemory.attach(os.dup(ours.descriptor), 1 << 16)
    theirs.view(64, 4)[:] = b"here"
    assert bytes(ours.view(64, 4)) == b"here"
    for offset, nbytes in [(-1, 4), (0, (1 << 16) + 1), (1 << 16, 1), (0, -1)]:
        with pytest.raises(ValueError, match="outside"):
            ours.view(offset, nbytes)
    with pytest.raises(ValueError, match="smaller"):
        SharedMemory.attach(theirs.descriptor, 1 << 17)
    ours.close()
    theirs.close()
    gc.collect()
