"""What is checked inside a process that has torch; each function raises where it does not hold."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from .cases import CASES
from .workers import resolve


def _stages(directory: str) -> dict[Any, Any]:
    from disagfusion.pipeline.options import LoadOptions
    from disagfusion.pipeline.stage_model import StageModel
    from disagfusion.pipeline.stages import Stage

    return {s: StageModel.load(directory, s, LoadOptions(threads=1)) for s in Stage}


def _latents(models: dict[Any, Any], request: dict[str, Any], **kwargs: Any) -> Any:
    encoder, dit, _ = models.values()
    return dit.run(request, encoder.run(request), **kwargs)["latents"]


def cancelling(directory: str) -> None:
    """A cancelled request stops between two steps and leaves nothing behind."""
    import torch

    from disagfusion.errors import JobCancelledError

    models = _stages(directory)
    request = CASES["flux-t2i"].request
    expected = _latents(models, request)
    steps: list[int] = []
    with pytest.raises(JobCancelledError):
        _latents(
            models,
            request,
            on_step=lambda done, _: steps.append(done),
            cancelled=lambda: len(steps) == 2,
        )
    assert steps == [1, 2]
    assert torch.equal(_latents(models, request), expected)


def requests_are_independent(directory: str) -> None:
    """Other steps, guidance, size and workflow in between change nothing."""
    import torch

    models = _stages(directory)
    case = CASES["sd3-i2i"]
    request, other = resolve(case.request), CASES["sd3-t2i"].request
    expected = _latents(models, request)
    _latents(models, {**other, "num_inference_steps": 5, "guidance_scale": 9.0, "height": 48})
    assert torch.equal(_latents(models, request), expected)


def blocks_of_diffusers_stay_untouched(directory: str) -> None:
    """diffusers keeps block instances in class attributes: ours must be copies."""
    import diffusers

    models = _stages(directory)
    _latents(models, CASES["flux-t2i"].request, on_step=lambda done, total: None)
    fresh = diffusers.FluxAutoBlocks().sub_blocks["denoise"].sub_blocks["denoise"]
    assert "loop_step" not in vars(fresh)
    assert not hasattr(fresh, "_progress_bar_config")


def ghosts(directory: str) -> None:
    """The DiT knows the VAE's scale and has no VAE."""
    import torch

    from disagfusion.pipeline.stages import Stage

    models = _stages(directory)
    pipe = models[Stage.DIT]._pipe
    assert pipe.vae_scale_factor == 2
    assert {p.device.type for p in pipe.vae.parameters()} == {"meta"}
    assert "vae" not in pipe.components
    assert pipe._execution_device == torch.device("cpu")
    latents = _latents(models, {**CASES["flux-t2i"].request, "height": 32, "width": 64})
    assert latents.shape == (1, 4, 16, 32)
    del pipe.vae
    assert pipe.vae_scale_factor == 8, "without a ghost diffusers assumes; so the ghost matters"


def damage(directory: str, scratch: str) -> None:
    """What is missing or damaged is said in one typed error."""
    from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
    from disagfusion.pipeline.describe import describe
    from disagfusion.pipeline.stage_model import StageModel
    from disagfusion.pipeline.stages import Stage

    def broken(name: str) -> Path:
        copy = Path(scratch) / name
        shutil.copytree(directory, copy)
        return copy

    def refused(model: Path | str, stage: Stage, reason: str, word: str) -> None:
        with pytest.raises(FailedPreconditionError, match=word) as caught:
            StageModel.load(str(model), stage)
        assert caught.value.reason == reason

    refused("/nowhere/at/all", Stage.DIT, "MODEL_NOT_FOUND", "no such directory")
    (Path(scratch) / "empty").mkdir()
    refused(f"{scratch}/empty", Stage.DIT, "MODEL_NOT_FOUND", "neither")
    refused("not-a-name", Stage.DIT, "MODEL_NOT_FOUND", "not-a-name")
    with pytest.raises(InvalidArgumentError, match="model"):
        describe("")

    model = broken("index")
    (model / "model_index.json").write_text("{")
    refused(model, Stage.DIT, "MODEL_DAMAGED", "cannot be read")
    (model / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}')
    refused(model, Stage.DIT, "MODEL_DAMAGED", "NoSuchPipeline")

    model = broken("truncated")
    weights = next((model / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(model, Stage.DIT, "MODEL_DAMAGED", "component transformer")
    StageModel.load(str(model), Stage.DECODER)

    model = broken("missing")
    shutil.rmtree(model / "text_encoder_2")
    refused(model, Stage.ENCODER, "MODEL_DAMAGED", "component text_encoder_2")

    model = broken("config")
    (model / "vae" / "config.json").write_text("[]")
    refused(model, Stage.DIT, "MODEL_DAMAGED", "vae")


def spec(directory: str, scratch: str) -> None:
    """The spec says what the model is; its version follows the files."""
    from disagfusion.errors import FailedPreconditionError
    from disagfusion.pipeline.describe import describe

    found = describe(directory)
    assert found.family == "flux"
    assert found.class_name == "FluxPipeline"
    assert found.output == "image"
    assert [w.name for w in found.workflows] == ["text2image", "image2image"]
    assert found.size_multiple == 4
    assert found.defaults["num_inference_steps"] == 50
    assert found.max_sequence_length == 512
    assert "latents" not in found.inputs
    assert describe(directory).version == found.version

    copy = Path(scratch) / "copy"
    shutil.copytree(directory, copy)
    assert describe(str(copy)).version == found.version
    weights = next((copy / "transformer").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = describe(str(copy))
    assert changed.version != found.version

    preset = {"defaults": {"height": 32, "width": 32, "num_inference_steps": 4}}
    (copy / "disagfusion.json").write_text(json.dumps(preset))
    found = describe(str(copy))
    assert found.preset == preset["defaults"]
    assert found.complete({"prompt": "x", "height": 64})["height"] == 64
    (copy / "disagfusion.json").write_text('{"defaults": {"height": [1]}}')
    with pytest.raises(FailedPreconditionError, match=r"disagfusion\.json"):
        describe(str(copy))


def options(directory: str) -> None:
    """Options reach diffusers' own functions; what they refuse names the option."""
    from disagfusion.errors import InvalidArgumentError
    from disagfusion.pipeline.options import LoadOptions
    from disagfusion.pipeline.stage_model import StageModel
    from disagfusion.pipeline.stages import Stage

    def load(stage: Stage, **values: Any) -> Any:
        return StageModel.load(directory, stage, LoadOptions.parse(values))

    vae = load(Stage.DECODER, vae_tiling=True, vae_slicing=True)._pipe.vae
    assert vae.use_tiling
    assert vae.use_slicing
    dit = load(Stage.DIT, attention_backend="native", dtype="bfloat16")
    assert str(dit._pipe.transformer.dtype) == "torch.bfloat16"
    assert load(Stage.ENCODER, workflows=["text2image"]).components == (
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
    )
    cached = load(Stage.DIT, cache={"kind": "first_block_cache", "kwargs": {"threshold": 0.2}})
    assert cached._pipe.transformer.is_cache_enabled
    for field, values in (
        ("attention_backend", {"attention_backend": "telepathy"}),
        ("cache", {"cache": {"kind": "first_block_cache", "kwargs": {"nonsense": 1}}}),
        ("quantization", {"quantization": {"backend": "nonsense", "kwargs": {"bits": 4}}}),
        ("workflows", {"workflows": ["text2music"]}),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            load(Stage.DIT, **values)
        assert caught.value.field == field


def bad_requests(directory: str) -> None:
    """A stage refuses what it does not know, and finds what is not a number."""
    import torch

    from disagfusion.errors import InvalidArgumentError
    from disagfusion.pipeline.stage_model import non_finite
    from disagfusion.pipeline.stages import Stage

    encoder = _stages(directory)[Stage.ENCODER]
    request = CASES["flux-t2i"].request
    with pytest.raises(InvalidArgumentError, match="seed"):
        encoder.run({k: v for k, v in request.items() if k != "seed"})
    with pytest.raises(InvalidArgumentError, match="colour"):
        encoder.run({**request, "colour": "red"})
    outputs = {
        "fine": torch.ones(2),
        "counts": torch.ones(2, dtype=torch.int64),
        "nested": [torch.ones(1), {"deep": torch.tensor([math.nan])}],
        "eight": torch.tensor([math.nan]).to(torch.float8_e4m3fn),
        "big": torch.tensor([math.inf], dtype=torch.bfloat16),
    }
    assert non_finite(outputs) == ["big", "eight", "nested/1/deep"]


def guiders(directory: str) -> None:
    """A guider's class is called with its whole configuration; from_config would drop some."""
    from disagfusion.pipeline.stages import Stage

    dit = _stages(directory)[Stage.DIT]
    guider = dit._request_pipe({"guidance_scale": 4.5}).guider
    assert guider.guidance_scale == 4.5
    assert guider.use_original_formulation
    assert guider._enabled
    assert not dit._request_pipe({"guidance_scale": 0.0}).guider._enabled
    assert dit._pipe.guider is not guider


def speed(directory: str) -> dict[str, float]:
    """Return the seconds of the fastest of thirty warm runs of each stage, and of preparing."""
    import time

    models = _stages(directory)
    request = CASES["flux-t2i"].request
    best: dict[str, float] = {}
    for _ in range(30):
        inputs: Any = None
        for stage, model in models.items():
            start = time.perf_counter()
            inputs = model.run(request, inputs)
            best[stage] = min(best.get(stage, 1e9), time.perf_counter() - start)
        start = time.perf_counter()
        dit = list(models.values())[1]
        plan = dit._staged.plan(request)
        dit._request_pipe(request)
        dit._initial_state(plan, request, {})
        best["prepare"] = min(best.get("prepare", 1e9), time.perf_counter() - start)
    return best
