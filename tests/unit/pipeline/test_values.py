"""The codec of hand-overs."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from disagfusion.errors import DataLossError, InternalError
from disagfusion.pipeline import values
from disagfusion.pipeline.tensors import byte_view, dense, dtype_name, from_bytes, stride_order
from disagfusion.pipeline.values import NamedTensor, flatten, unflatten

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    order = draw(st.permutations(range(len(shape))))
    dtype = draw(st.sampled_from(DTYPES))
    count = math.prod(shape)
    raw = draw(st.binary(min_size=count, max_size=count))
    flat = torch.tensor(list(raw), dtype=torch.uint8)
    if dtype is torch.bool:
        flat = flat % 2
    tensor = flat.reshape([shape[d] for d in order]).to(dtype)
    return tensor.permute([order.index(d) for d in range(len(shape))])


def leaves() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(),
        st.sampled_from(DTYPES),
        tensors(),
        hnp.arrays(st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]), hnp.array_shapes()),
    )


def trees() -> st.SearchStrategy[dict[str, Any]]:
    nested = st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(st.text(max_size=6), inner, max_size=3),
        ),
        max_leaves=12,
    )
    return st.dictionaries(st.text(max_size=8), nested, max_size=4)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and stride_order(a) == stride_order(b)
            and torch.equal(byte_view(dense(a)), byte_view(b))
        )
    if isinstance(a, np.ndarray):
        return type(b) is np.ndarray and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return a.hex() == b.hex()
    return bool(a == b)


def over_the_wire(tensor: torch.Tensor) -> torch.Tensor:
    """Only bytes and what describes them."""
    data = bytearray(byte_view(tensor).numpy().tobytes())
    return from_bytes(data, dtype_name(tensor.dtype), tuple(tensor.shape), stride_order(tensor))


@given(trees())
@example({"0": torch.tensor(0.0), "": [torch.tensor(0.0)]})
@example({"a/b": torch.tensor(1.0), "a": {"b": torch.tensor(2.0)}})
def test_what_goes_in_comes_out(tree: dict[str, Any]) -> None:
    found, structure = flatten(tree)
    sent = [NamedTensor(entry.name, over_the_wire(entry.tensor)) for entry in found]
    assert same(tree, unflatten(sent, structure))


@pytest.mark.parametrize("number", [math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1])
def test_floats_are_exact(number: float) -> None:
    result = unflatten(*flatten({"x": number}))["x"]
    assert math.copysign(1, result) == math.copysign(1, number)
    assert result.hex() == number.hex()


def test_nan_and_lone_surrogates_cross() -> None:
    result = unflatten(*flatten({"x": math.nan, "s": "\ud800"}))
    assert math.isnan(result["x"])
    assert result["s"] == "\ud800"


def test_a_generator_goes_on_where_it_was() -> None:
    generator = torch.Generator().manual_seed(3)
    torch.randn(5, generator=generator)
    copy = unflatten(*flatten({"generator": generator}))["generator"]
    assert torch.equal(torch.randn(7, generator=copy), torch.randn(7, generator=generator))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "F"])
def test_images_cross(mode: str) -> None:
    image = Image.effect_noise((7, 5), 60).convert(mode)
    result = unflatten(*flatten({"image": [image]}))["image"][0]
    assert result.mode == mode
    assert result.size == (7, 5)
    assert result.tobytes() == image.tobytes()


def test_channels_last_stays_channels_last() -> None:
    latents = torch.randn(1, 4, 6, 8).to(memory_format=torch.channels_last)
    (entry,), structure = flatten({"latents": latents})
    result = unflatten([NamedTensor("latents", over_the_wire(entry.tensor))], structure)["latents"]
    assert result.stride() == latents.stride()
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(1, 1, 6, 8), (2, 1, 6, 8), (1, 3, 1, 8), (2, 3, 1, 1)])
@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_strides_of_dimensions_of_one_are_restored(
    shape: tuple[int, ...], format_: torch.memory_format
) -> None:
    tensor = torch.empty(shape, memory_format=format_)
    assert over_the_wire(tensor).stride() == tensor.stride()


def test_expanded_and_strided_tensors_are_made_dense() -> None:
    tree = {"a": torch.arange(3.0).expand(4, 3), "b": torch.arange(24.0).reshape(4, 6)[:, ::2].t()}
    found, structure = flatten(tree)
    result = unflatten([NamedTensor(e.name, over_the_wire(e.tensor)) for e in found], structure)
    assert torch.equal(result["a"], tree["a"])
    assert torch.equal(result["b"], tree["b"])
    assert stride_order(result["b"]) == stride_order(tree["b"])


def test_dense_tensors_are_not_copied() -> None:
    tensor = torch.randn(2, 3, 4).transpose(0, 2)
    ((entry,), _) = flatten({"x": tensor})
    assert entry.tensor.data_ptr() == tensor.data_ptr()
    assert byte_view(entry.tensor).data_ptr() == tensor.data_ptr()


class Stranger:
    """A type that nobody allowed."""


@pytest.mark.parametrize(
    "value",
    [
        Stranger(),
        {1, 2},
        b"bytes",
        {1: 2},
        2**64,
        1j,
        np.float64(1.0),
        np.array(["text"]),
        np.array([object()]),
        print,
        Stranger,
        torch.ones(3).to_sparse(),
        Image.new("P", (2, 2)),
    ],
)
def test_anything_else_is_refused_and_named(value: Any) -> None:
    with pytest.raises(InternalError, match="deep/1") as caught:
        flatten({"deep": [None, value]})
    assert caught.value.reason == "UNSUPPORTED_VALUE"


def test_depth_and_size_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    deep: Any = None
    for _ in range(values.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(InternalError, match="nested too deeply"):
        flatten({"x": deep})
    with pytest.raises(InternalError, match="too many values"):
        flatten({"x": [None] * (values.MAX_VALUES + 1)})
    monkeypatch.setattr(values, "MAX_TENSORS", 3)
    with pytest.raises(InternalError, match="too many tensors"):
        flatten({"x": [torch.ones(1)] * 4})
    with pytest.raises(InternalError, match="bytes"):
        flatten({"x": "x" * (values.MAX_STRUCTURE_BYTES + 1)})


@given(st.binary(max_size=64))
def test_garbage_is_a_clear_error(garbage: bytes) -> None:
    # It may happen to be a document; whatever else it raises fails the test.
    with contextlib.suppress(DataLossError):
        assert type(unflatten([], garbage)) is dict


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$", "v", "mode", "size", "device"]),
            inner | st.sampled_from(["tensor", "image", "generator", "dtype", "tuple", "x", "RGB"]),
            max_size=4,
        )
    ),
)


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=3))
def test_a_forged_structure_is_a_clear_error(document: dict[str, Any]) -> None:
    given_tensors = [NamedTensor("x", torch.zeros(12, dtype=torch.uint8))]
    with contextlib.suppress(DataLossError):
        unflatten(given_tensors, json.dumps(document).encode())


def test_deeply_nested_garbage_does_not_recurse() -> None:
    with pytest.raises(DataLossError):
        unflatten([], b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_tensors_and_structure_must_fit() -> None:
    found, structure = flatten({"a": torch.ones(2), "b": torch.ones(3)})
    with pytest.raises(DataLossError, match="no tensor 'b'"):
        unflatten(found[:1], structure)
    with pytest.raises(DataLossError, match="without a place: c"):
        unflatten([*found, NamedTensor("c", torch.ones(1))], structure)
    with pytest.raises(DataLossError, match="one name"):
        unflatten([*found, found[0]], structure)


def test_from_bytes_checks_sizes() -> None:
    with pytest.raises(DataLossError, match="came with 3 bytes"):
        from_bytes(bytearray(3), "float32", (1,), (0,))
    with pytest.raises(DataLossError, match="stride order"):
        from_bytes(bytearray(4), "float32", (1,), (1,))
    with pytest.raises(DataLossError, match="unknown dtype"):
        from_bytes(bytearray(4), "Tensor", (1,), (0,))
