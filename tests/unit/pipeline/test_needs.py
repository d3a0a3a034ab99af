"""Options that need what is not there are refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from disagfusion.errors import InvalidArgumentError
from disagfusion.local.deployment import DIGITS
from disagfusion.pipeline.needs import check_needs
from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.stage_model import StageModel
from disagfusion.pipeline.stages import Stage

COMPILE = {"compile": {"scope": "model"}}
QUANTIZE = {"quantization": {"backend": "bitsandbytes_8bit", "kwargs": {"load_in_8bit": True}}}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any program; returns the directory in which one may be put."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def put(directory: Path, name: str) -> None:
    (directory / name).touch(mode=0o755)


def load(stage: Stage, **options: Any) -> StageModel:
    return StageModel.load(str(DIGITS), stage, LoadOptions.parse(options))


@pytest.mark.usefixtures("bare")
def test_a_stage_that_would_fail_at_its_first_job_does_not_load() -> None:
    with pytest.raises(InvalidArgumentError, match=r"no g\+\+.*an image with one") as refused:
        load(Stage.DIT, **COMPILE)
    assert refused.value.field == "compile"


@pytest.mark.usefixtures("bare")
def test_a_stage_that_compiles_nothing_needs_no_compiler() -> None:
    """Its models are transformers', or have no blocks that repeat."""
    repeated = {"compile": {"scope": "repeated_blocks"}}
    assert "text_encoder" in load(Stage.ENCODER, **repeated).components
    assert "vae" in load(Stage.DECODER, **repeated).components
    with pytest.raises(InvalidArgumentError, match="compiler"):
        load(Stage.DECODER, **COMPILE)


def test_the_compiler_is_the_one_that_torch_takes_for_the_device(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"transformer": type(load(Stage.DIT)._pipe.transformer)}

    def check(device: str) -> None:
        check_needs(kinds, LoadOptions.parse({**COMPILE, "device": device}))

    with pytest.raises(InvalidArgumentError, match="no gcc or clang"):
        check("cuda:1")
    put(bare, "clang")
    check("cuda:1")
    with pytest.raises(InvalidArgumentError, match=r"no g\+\+"):
        check("cpu")
    put(bare, "g++")
    check("cpu")
    monkeypatch.setenv("CXX", "icpx")
    with pytest.raises(InvalidArgumentError, match="no icpx, of CXX"):
        check("cpu")
    check("mps")


def test_quantization_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[str] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in known else None)
    options = LoadOptions.parse(QUANTIZE)
    with pytest.raises(InvalidArgumentError, match="package bitsandbytes") as refused:
        check_needs({"transformer": torch.nn.Linear}, options)
    assert refused.value.field == "quantization"
    check_needs({"scheduler": None, "tokenizer": dict}, options)
    only = {"quantization": {**QUANTIZE["quantization"], "components": ["text_encoder"]}}
    check_needs({"transformer": torch.nn.Linear}, LoadOptions.parse(only))
    known.append("bitsandbytes")
    check_needs({"transformer": torch.nn.Linear}, options)


def test_a_stage_without_the_package_says_so() -> None:
    with pytest.raises(InvalidArgumentError, match="bitsandbytes_8bit needs the package"):
        load(Stage.DIT, **QUANTIZE)
