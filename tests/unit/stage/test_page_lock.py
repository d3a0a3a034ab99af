"""Memory that CUDA copies to and from is locked; the CUDA runtime here is a stand-in."""

from __future__ import annotations

import pytest
import torch

from disagfusion.stage.memory import SharedMemory
from disagfusion.stage.stage_engine import page_lock


class Runtime:
    def __init__(self, status: int) -> None:
        self.status = status
        self.registered: list[tuple[int, int, int]] = []

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:
        self.registered.append((address, nbytes, flags))
        return self.status


@pytest.mark.parametrize("status", [0, 2])
def test_the_whole_memory_is_locked_for_cuda(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    runtime, memory = Runtime(status), SharedMemory.create(1 << 20)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    assert page_lock(memory, "cuda:0") is (status == 0)
    ((address, nbytes, flags),) = runtime.registered
    assert (nbytes, flags) == (1 << 20, 0)
    memory.view(5, 1)[0] = 7
    assert torch.frombuffer(memory.view(0, 8), dtype=torch.uint8).data_ptr() == address
    memory.close()


def test_there_is_nothing_to_lock_without_cuda() -> None:
    memory = SharedMemory.create(1 << 12)
    assert page_lock(memory, "cpu") is False
    memory.close()
