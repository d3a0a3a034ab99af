"""The only values that may cross from one stage to the next, and how they are written down.

`flatten` takes a mapping apart into tensors, which travel on the data plane, and everything else,
which is a typed JSON document. `unflatten` puts both together again. There is no pickle and no
other way to name a class: what is not in the list below is refused on either side.

    None · bool · int · float · str · list · tuple · dict with str keys
    torch.Tensor · torch.Generator (its state) · torch.dtype
    PIL.Image.Image · numpy.ndarray
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from disagfusion.errors import DataLossError, InternalError
from disagfusion.pipeline.tensors import dense

MAX_DEPTH = 16
MAX_VALUES = 100_000
MAX_STRUCTURE_BYTES = 4 * 1024 * 1024
MAX_TENSORS = 4096
MAX_NAME_CHARACTERS = 512
_INT_RANGE = range(-(2**63), 2**64)

# Modes whose raw bytes are the whole picture; a palette would need a second buffer.
_IMAGE_BYTES_PER_PIXEL = {"L": 1, "RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4, "YCbCr": 3, "F": 4}

_TAG = "$"


@dataclass(frozen=True, slots=True, eq=False)
class NamedTensor:
    """A tensor and its place in the tree.

    Attributes:
        name: JSON pointer without the leading slash: "prompt_embeds", "image_latents/0".
        tensor: Dense in memory: no gaps and no overlaps, in whatever order of dimensions.
    """

    name: str
    tensor: torch.Tensor


def flatten(value_tree: Mapping[str, object]) -> tuple[list[NamedTensor], bytes]:
    """Take a tree of values apart.

    Tensors keep the order of their dimensions in memory, because a kernel that sees another
    order may round differently.

    Args:
        value_tree: What a stage hands over, by diffusers' names.

    Returns:
        The tensors, in the order in which they were met, and the rest as UTF-8 encoded JSON.

    Raises:
        InternalError: With reason UNSUPPORTED_VALUE: a value is of a type that may not cross, or
            the tree is too deep or too large.
    """
    writer = _Writer()
    document = {key: writer.encode(value, _child("", key), 1) for key, value in value_tree.items()}
    structure = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    if len(structure) > MAX_STRUCTURE_BYTES:
        raise _unsupported("", f"the structure has {len(structure)} bytes", MAX_STRUCTURE_BYTES)
    return writer.tensors, structure


def unflatten(tensors: Sequence[NamedTensor], structure: bytes) -> dict[str, Any]:
    """Put together what `flatten` took apart.

    Args:
        tensors: As `flatten` returned them, in any order.
        structure: As `flatten` returned it.

    Returns:
        The tree. Tensors are the objects that were passed in, not copies.

    Raises:
        DataLossError: The structure is not one that `flatten` writes, or does not fit the tensors.
    """
    if len(structure) > MAX_STRUCTURE_BYTES or len(tensors) > MAX_TENSORS:
        raise _damaged("too large")
    try:
        document = json.loads(bytes(structure).decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(f"not a JSON document ({error})") from error
    if type(document) is not dict:
        raise _damaged("not an object")
    by_name = {entry.name: entry.tensor for entry in tensors}
    if len(by_name) != len(tensors):
        raise _damaged("two tensors of one name")
    reader = _Reader(by_name)
    tree = {key: reader.decode(value, 1) for key, value in document.items()}
    if reader.left:
        raise _damaged(f"tensors without a place: {', '.join(sorted(reader.left)[:8])}")
    return tree


def _child(path: str, key: str | int) -> str:
    escaped = str(key).replace("~", "~0").replace("/", "~1")
    return f"{path}/{escaped}"


def _name(path: str) -> str:
    return path.removeprefix("/")


def _unsupported(path: str, what: str, limit: int | None = None) -> InternalError:
    text = f"value {_name(path)!r} cannot cross between stages: {what}" + (
        f", at most {limit} are allowed" if limit is not None else ""
    )
    return InternalError(text, reason="UNSUPPORTED_VALUE")


def _damaged(what: str) -> DataLossError:
    return DataLossError(f"a hand-over between stages is damaged: {what}", reason="DAMAGED_VALUES")


class _Writer:
    def __init__(self) -> None:
        self.tensors: list[NamedTensor] = []
        self._values = 0

    def encode(self, value: object, path: str, depth: int) -> Any:
        self._values += 1
        if depth > MAX_DEPTH:
            raise _unsupported(path, "nested too deeply", MAX_DEPTH)
        if self._values > MAX_VALUES:
            raise _unsupported(path, "too many values", MAX_VALUES)
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            if value not in _INT_RANGE:
                raise _unsupported(path, "an integer of more than 64 bits")
            return value
        if kind is float:
            assert isinstance(value, float)
            return value if math.isfinite(value) else {_TAG: "float", "v": repr(value)}
        if kind is list:
            assert isinstance(value, list)
            return [self.encode(v, _child(path, i), depth + 1) for i, v in enumerate(value)]
        if kind is tuple:
            assert isinstance(value, tuple)
            items = [self.encode(v, _child(path, i), depth + 1) for i, v in enumerate(value)]
            return {_TAG: "tuple", "v": items}
        if kind is dict:
            assert isinstance(value, dict)
            return {_TAG: "dict", "v": self._encode_dict(value, path, depth)}
        return self._encode_object(value, path)

    def _encode_dict(self, value: dict[Any, object], path: str, depth: int) -> dict[str, Any]:
        for key in value:
            if type(key) is not str:
                raise _unsupported(path, f"a dict with a key of type {type(key).__name__}")
        return {k: self.encode(v, _child(path, k), depth + 1) for k, v in value.items()}

    def _encode_object(self, value: object, path: str) -> dict[str, Any]:
        if isinstance(value, torch.Tensor):
            return {_TAG: "tensor", "v": self._add(value, path)}
        if type(value) is torch.Generator:
            state = self._add(value.get_state(), path)
            return {_TAG: "generator", "v": state, "device": str(value.device)}
        if type(value) is torch.dtype:
            return {_TAG: "dtype", "v": str(value).removeprefix("torch.")}
        if isinstance(value, Image.Image):
            return self._encode_image(value, path)
        if type(value) is np.ndarray:
            return {_TAG: "ndarray", "v": self._add(_from_numpy(value, path), path)}
        raise _unsupported(path, f"its type is {type(value).__module__}.{type(value).__qualname__}")

    def _encode_image(self, value: Image.Image, path: str) -> dict[str, Any]:
        if value.mode not in _IMAGE_BYTES_PER_PIXEL:
            raise _unsupported(path, f"an image of mode {value.mode}")
        raw = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8)
        return {
            _TAG: "image",
            "v": self._add(raw, path),
            "mode": value.mode,
            "size": list(value.size),
        }

    def _add(self, tensor: torch.Tensor, path: str) -> str:
        if len(self.tensors) == MAX_TENSORS:
            raise _unsupported(path, "too many tensors", MAX_TENSORS)
        name = _name(path)
        if len(name) > MAX_NAME_CHARACTERS:
            raise _unsupported(path[:64], "its name is too long", MAX_NAME_CHARACTERS)
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise _unsupported(path, f"a tensor of layout {tensor.layout}")
        self.tensors.append(NamedTensor(name, dense(tensor.detach())))
        return name


class _Reader:
    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.left = dict(tensors)
        self._values = 0

    def decode(self, value: Any, depth: int) -> Any:
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise _damaged("nested too deeply or too many values")
        if type(value) is list:
            return [self.decode(item, depth + 1) for item in value]
        if type(value) is dict:
            return self._decode_tagged(value, depth)
        return value

    def _decode_tagged(self, value: dict[str, Any], depth: int) -> Any:
        tag, content = value.get(_TAG), value.get("v")
        match tag, content:
            case "tuple", list():
                return tuple(self.decode(item, depth + 1) for item in content)
            case "dict", dict():
                return {k: self.decode(v, depth + 1) for k, v in content.items()}
            case "float", "inf" | "-inf" | "nan":
                return float(content)
            case "dtype", str() if isinstance(getattr(torch, content, None), torch.dtype):
                return getattr(torch, content)
            case "tensor", str():
                return self._take(content)
            case "ndarray", str():
                return self._take(content).cpu().numpy()
            case "generator", str():
                return self._generator(self._take(content), value.get("device"))
            case "image", str():
                return self._image(self._take(content), value.get("mode"), value.get("size"))
        raise _damaged(f"unknown kind of value {str(tag)[:32]!r}")

    def _take(self, name: str) -> torch.Tensor:
        try:
            return self.left.pop(name)
        except KeyError:
            raise _damaged(f"no tensor {name[:64]!r}") from None

    @staticmethod
    def _generator(state: torch.Tensor, device: object) -> torch.Generator:
        try:
            generator = torch.Generator(torch.device(str(device)))
            # A received tensor may be a read-only view; the generator keeps its own copy.
            generator.set_state(state.cpu().clone())
        except (RuntimeError, TypeError) as error:
            raise _damaged(f"not a generator's state ({error})") from error
        return generator

    @staticmethod
    def _image(raw: torch.Tensor, mode: object, size: object) -> Image.Image:
        match mode, size:
            case str(), [int() as width, int() as height] if mode in _IMAGE_BYTES_PER_PIXEL:
                expected = width * height * _IMAGE_BYTES_PER_PIXEL[mode]
                if width > 0 and height > 0 and raw.numel() * raw.element_size() == expected:
                    return Image.frombytes(mode, (width, height), raw.cpu().numpy().tobytes())
        raise _damaged("an image that does not fit its size")


def _from_numpy(array: np.ndarray[Any, Any], path: str) -> torch.Tensor:
    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise _unsupported(path, f"an array of {array.dtype} ({error})") from error
