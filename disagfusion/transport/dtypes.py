"""The allow-list of element types on the wire, without torch.

The names are torch's without the prefix; a code never changes its meaning. Types of less than a
byte are counted as torch counts them: by the bytes of their storage. torch's quantized types
(`qint8` and so on) are not here: their bytes mean nothing without a scale that is stored elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple


class Dtype(NamedTuple):
    """An element type.

    Attributes:
        code: On the wire.
        name: torch's name without the prefix.
        itemsize: Bytes per element.
    """

    code: int
    name: str
    itemsize: int


_ALL = (
    Dtype(1, "bool", 1),
    Dtype(2, "uint8", 1),
    Dtype(3, "int8", 1),
    Dtype(4, "uint16", 2),
    Dtype(5, "int16", 2),
    Dtype(6, "uint32", 4),
    Dtype(7, "int32", 4),
    Dtype(8, "uint64", 8),
    Dtype(9, "int64", 8),
    Dtype(16, "float16", 2),
    Dtype(17, "bfloat16", 2),
    Dtype(18, "float32", 4),
    Dtype(19, "float64", 8),
    Dtype(20, "complex32", 4),
    Dtype(21, "complex64", 8),
    Dtype(22, "complex128", 16),
    Dtype(32, "float8_e4m3fn", 1),
    Dtype(33, "float8_e4m3fnuz", 1),
    Dtype(34, "float8_e5m2", 1),
    Dtype(35, "float8_e5m2fnuz", 1),
    Dtype(36, "float8_e8m0fnu", 1),
    Dtype(37, "float4_e2m1fn_x2", 1),
    Dtype(48, "uint1", 1),
    Dtype(49, "uint2", 1),
    Dtype(50, "uint3", 1),
    Dtype(51, "uint4", 1),
    Dtype(52, "uint5", 1),
    Dtype(53, "uint6", 1),
    Dtype(54, "uint7", 1),
    Dtype(56, "int1", 1),
    Dtype(57, "int2", 1),
    Dtype(58, "int3", 1),
    Dtype(59, "int4", 1),
    Dtype(60, "int5", 1),
    Dtype(61, "int6", 1),
    Dtype(62, "int7", 1),
    Dtype(64, "bits1x8", 1),
    Dtype(65, "bits2x4", 1),
    Dtype(66, "bits4x2", 1),
    Dtype(67, "bits8", 1),
    Dtype(68, "bits16", 2),
)

BY_CODE = {dtype.code: dtype for dtype in _ALL}
BY_NAME = {dtype.name: dtype for dtype in _ALL}
