"""The engines of the three services with the digits model, in this process."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from stagekit.driver import generation
from stagekit.processes import DIGITS

from disagfusion.errors import DataLossError, InvalidArgumentError, JobCancelledError
from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.payload import read_tree
from disagfusion.v1 import engine_pb2, stage_pb2

with warnings.catch_warnings():
    # What diffusers imports deprecates what it imports itself.
    warnings.simplefilter("ignore")
    from disagfusion.stage.runner import NoSpaceError, load_engine
    from disagfusion.stage.stage_engine import (
        NonFiniteError,
        Result,
        StageEngine,
        Task,
        classify,
    )

CLASSES = {
    Stage.ENCODER: "disagfusion_encoder.engine:EncoderEngine",
    Stage.DIT: "disagfusion_dit.engine:DitEngine",
    Stage.DECODER: "disagfusion_decoder.engine:DecoderEngine",
}


def engine_of(stage: Stage, **settings: Any) -> StageEngine:
    config = EngineConfig(
        stage=stage, engine=CLASSES[stage], model=str(DIGITS), options=LoadOptions(), **settings
    )
    return load_engine(config)


def task(inputs: dict[str, Any] | None = None, **asked: Any) -> Task:
    return Task(generation(**asked), inputs, lambda step, of: None, lambda: False)


def tree(result: Result) -> dict[str, Any]:
    memory = memoryview(bytearray(result.payload.nbytes))
    result.payload.write(memory)
    return read_tree(memory, result.payload.tensors, result.payload.structure)


def payload_bytes(result: Result) -> bytes:
    memory = bytearray(result.payload.nbytes)
    result.payload.write(memoryview(memory))
    return bytes(memory)


@pytest.fixture(scope="module")
def encoder() -> StageEngine:
    return engine_of(Stage.ENCODER, prompt_cache_bytes=1 << 20)


@pytest.fixture(scope="module")
def encoded(encoder: StageEngine) -> dict[str, Any]:
    return tree(encoder.run(task()))


def test_a_tenant_does_not_see_what_others_have_asked(encoder: StageEngine) -> None:
    seen = []
    for tenant in ("acme", "other", "acme"):
        asked = task(prompt="a secret")
        asked.tenant = tenant
        seen.append(encoder.run(asked).prompt_cache)
    miss, hit = engine_pb2.PROMPT_CACHE_RESULT_MISS, engine_pb2.PROMPT_CACHE_RESULT_HIT
    assert seen == [miss, miss, hit]


def test_the_cache_answers_with_the_same_bytes(encoder: StageEngine) -> None:
    asked = {"prompt": "a handwritten one in green"}
    miss, hit = encoder.run(task(**asked)), encoder.run(task(**asked))
    assert miss.prompt_cache == engine_pb2.PROMPT_CACHE_RESULT_MISS
    assert hit.prompt_cache == engine_pb2.PROMPT_CACHE_RESULT_HIT
    plain = engine_of(Stage.ENCODER).run(task(**asked))
    assert plain.prompt_cache == engine_pb2.PROMPT_CACHE_RESULT_UNSPECIFIED
    assert payload_bytes(miss) == payload_bytes(hit) == payload_bytes(plain)
    assert miss.payload.tensors == hit.payload.tensors == plain.payload.tensors
    assert miss.payload.structure == hit.payload.structure == plain.payload.structure
    other = encoder.run(task(**asked, seed=99))
    assert other.prompt_cache == engine_pb2.PROMPT_CACHE_RESULT_HIT
    longer = task(**asked)
    longer.generation.parameters["max_sequence_length"].int_value = 64
    assert encoder.run(longer).prompt_cache == engine_pb2.PROMPT_CACHE_RESULT_MISS


def test_weights_that_are_not_numbers_are_found(encoded: dict[str, Any]) -> None:
    engine = engine_of(Stage.DIT)
    with torch.no_grad():
        next(engine.model._pipe.transformer.parameters()).fill_(math.nan)
    with pytest.raises(NonFiniteError, match="latents"):
        engine.run(task(encoded))


def test_pixels_that_are_not_numbers_are_found(encoded: dict[str, Any]) -> None:
    denoised = tree(engine_of(Stage.DIT).run(task(encoded)))
    decoder = engine_of(Stage.DECODER)
    assert decoder.run(task(denoised)).media[0].content_type == "image/png"
    denoised["latents"] = torch.full_like(denoised["latents"], math.nan)
    with pytest.raises(NonFiniteError):
        decoder.run(task(denoised))


def test_the_dit_reports_steps_and_stops_between_them(encoded: dict[str, Any]) -> None:
    seen: list[tuple[int, int]] = []
    run = Task(
        generation(steps=6),
        encoded,
        lambda step, of: seen.append((step, of)),
        lambda: len(seen) == 3,
    )
    with pytest.raises(JobCancelledError):
        engine_of(Stage.DIT).run(run)
    assert seen == [(1, 6), (2, 6), (3, 6)]
    assert run.compute_seconds > 0


def test_failures_are_told_apart() -> None:
    def raised(size: int) -> Exception:
        try:
            torch.empty(size)
        except RuntimeError as error:
            return error
        raise AssertionError("no error")

    kinds = stage_pb2.FailureKind
    table: list[tuple[Exception, str, bool]] = [
        (JobCancelledError("c"), "CANCELLED", False),
        (NonFiniteError("n"), "NON_FINITE", False),
        (DataLossError("d"), "INPUT_LOST", False),
        (InvalidArgumentError("f", "m"), "INVALID_ARGUMENT", False),
        (ValueError("`height` must be divisible by 16"), "INVALID_ARGUMENT", False),
        (torch.OutOfMemoryError("CUDA out of memory"), "OUT_OF_MEMORY", True),
        (raised(2**45), "OUT_OF_MEMORY", True),
        (MemoryError(), "OUT_OF_MEMORY", True),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), "DEVICE_ERROR", True),
        (NoSpaceError("n"), "INTERNAL", False),
        (RuntimeError("x"), "INTERNAL", False),
    ]
    for error, name, ends in table:
        assert classify(error) == (kinds.Value(f"FAILURE_KIND_{name}"), ends), repr(error)


def test_the_model_is_named_where_it_is_missing(tmp_path: Path) -> None:
    config = EngineConfig(
        stage=Stage.DIT, engine=CLASSES[Stage.DIT], model=str(tmp_path), options=LoadOptions()
    )
    with pytest.raises(Exception, match=str(tmp_path)):
        load_engine(config)
