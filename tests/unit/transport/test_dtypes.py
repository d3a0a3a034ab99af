import torch

from disagfusion.transport.dtypes import BY_NAME


def test_the_list_is_torchs_without_what_needs_a_scale() -> None:
    quantized = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}
    every = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    names = {str(d).removeprefix("torch."): d.itemsize for d in every - quantized}
    assert {dtype.name: dtype.itemsize for dtype in BY_NAME.values()} == names
