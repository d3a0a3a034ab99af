"""Devices, and memory that CUDA copies to and from; the CUDA runtime here is a stand-in."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from disagfusion.errors import InvalidArgumentError
from disagfusion.stage.memory import SharedMemory
from disagfusion.stage.stage_engine import check_device, page_lock


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


@pytest.mark.parametrize(
    ("devices", "name", "expected"),
    [
        (0, "cuda", "no CUDA device was found"),
        (0, "cuda:0", "no CUDA device was found"),
        (2, "cuda:2", "one of cuda:0, cuda:1"),
    ],
)
def test_a_device_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, devices: int, name: str, expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: devices)
    with pytest.raises(InvalidArgumentError, match=f"device.*{expected}"):
        check_device(name)


@pytest.mark.parametrize("name", ["cpu", "mps", "cuda", "cuda:1"])
def test_a_device_that_is_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_device(name)


def test_what_is_imported_before_a_fork_leaves_cuda_to_the_engines() -> None:
    """The runtime's own count of devices makes CUDA unusable in every child."""
    program = """
import torch

def count():
    raise SystemExit("the CUDA runtime was asked")

torch._C._cuda_getDeviceCount = count
torch.cuda._device_count_nvml = lambda: 1
from disagfusion.stage import engine

engine.preload()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
