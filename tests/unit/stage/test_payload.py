from __future__ import annotations

import mmap
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disagfusion.errors import DataLossError, DisagfusionError
from disagfusion.stage.payload import Payload, read_tree
from disagfusion.transport.api import TensorInfo
from disagfusion.transport.dtypes import BY_NAME

# torch warns when a tensor of this type is first made.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

ALL = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
# Their bytes mean nothing without a scale that is stored elsewhere.
QUANTIZED = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}
DTYPES = sorted(ALL - QUANTIZED, key=str)


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Every bit pattern, NaN included."""
    count = torch.Size(shape).numel()
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, dtype=torch.bool)
    raw = torch.randint(0, 256, (count * dtype.itemsize,), dtype=torch.uint8)
    if not count:
        return torch.empty(shape, dtype=dtype)
    return raw.view(dtype).as_strided(shape, torch.empty(shape, dtype=torch.uint8).stride())


def raw_bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.as_strided((tensor.numel(),), (1,)) if tensor.numel() else tensor.reshape(-1)
    return bytes(flat.view(torch.uint8).tolist()) if tensor.numel() else b""


def travel(tree: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    payload = Payload.of_tree(tree)
    buffer = memoryview(mmap.mmap(-1, max(1, payload.nbytes)))[: payload.nbytes]
    payload.write(buffer)
    return read_tree(buffer, payload.tensors, payload.structure)


def test_the_list_is_torchs() -> None:
    names = {str(dtype).removeprefix("torch."): dtype.itemsize for dtype in DTYPES}
    assert {dtype.name: dtype.itemsize for dtype in BY_NAME.values()} == names


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (5,), (2, 3, 4)], ids=str)
def test_every_dtype(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = random_tensor(dtype, shape)
    arrived = travel({"before": torch.ones(3), "tensor": tensor})["tensor"]
    assert arrived.dtype == dtype
    assert arrived.shape == tensor.shape
    assert arrived.stride() == tensor.stride()
    assert raw_bytes(arrived) == raw_bytes(tensor)


def test_layouts_are_kept() -> None:
    tensors = {
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "video": torch.randn(1, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
        "transposed": torch.randn(4, 6).T,
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
    }
    arrived = travel(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(arrived[name], tensor)
        assert arrived[name].stride() == tensor.stride()


def test_what_is_not_dense_is_copied_dense() -> None:
    base = torch.randn(6, 8)
    tensors = {
        "sliced": base[:, ::2],
        "expanded": torch.randn(1, 5).expand(4, 5),
        "flipped": base.flip(0),
        "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
        "negated": torch.randn(3, dtype=torch.complex64).conj().imag,
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    arrived = travel(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(arrived[name], tensor.detach())
        assert arrived[name].shape == tensor.shape


def test_views_share_the_memory_and_are_aligned() -> None:
    payload = Payload.of_tree({"a": torch.zeros(3), "b": torch.zeros(5, dtype=torch.float64)})
    assert [info.offset for info in payload.tensors] == [0, 64]
    assert payload.nbytes == 128
    buffer = memoryview(mmap.mmap(-1, payload.nbytes))
    payload.write(buffer)
    arrived = read_tree(buffer, payload.tensors, payload.structure)
    buffer[64:72] = b"\0\0\0\0\0\0\xf0\x3f"
    assert arrived["b"].tolist() == [1, 0, 0, 0, 0]
    assert all(tensor.data_ptr() % 64 == 0 for tensor in arrived.values())


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=8)), max_size=6
    ),
    st.randoms(),
)
@settings(max_examples=60, deadline=None)
def test_any_set_of_tensors(kinds: list[tuple[torch.dtype, list[int]]], random: object) -> None:
    tensors = {
        f"t{index}": random_tensor(dtype, tuple(shape))
        for index, (dtype, shape) in enumerate(kinds)
    }
    assert Payload.of_tree(tensors).nbytes % 64 == 0
    arrived = travel(tensors)
    assert list(arrived) == list(tensors)
    for name, tensor in tensors.items():
        assert raw_bytes(arrived[name]) == raw_bytes(tensor)
        assert arrived[name].shape == tensor.shape


@pytest.mark.parametrize(
    "info",
    [
        TensorInfo("t", "float32", (4,), (0,), 64, 16),
        TensorInfo("t", "float32", (4,), (0,), 0, 12),
        TensorInfo("t", "object", (4,), (0,), 0, 16),
        TensorInfo("t", "float32", (4,), (1,), 0, 16),
        TensorInfo("t", "float32", (100,), (0,), 0, 400),
    ],
)
def test_descriptions_that_do_not_fit(info: TensorInfo) -> None:
    structure = Payload.of_tree({"t": torch.zeros(4)}).structure
    with pytest.raises(DataLossError):
        read_tree(memoryview(bytearray(64)), [info], structure)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_what_cannot_be_sent() -> None:
    quantized = torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)
    for tensor in (torch.eye(3).to_sparse(), quantized):
        with pytest.raises(DisagfusionError):
            Payload.of_tree({"t": tensor})


def test_the_transport_does_not_import_torch() -> None:
    program = (
        "import sys, disagfusion.transport.backends.ucx, disagfusion.transport.backends.tcp,"
        " disagfusion.transport.backends.inproc, disagfusion.transport.testing;"
        "from disagfusion.transport.backends.ucx_native import library; library();"
        "sys.exit(any(name.split('.')[0] == 'torch' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0
