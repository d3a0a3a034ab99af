"""Which files of a model a stage needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from disagfusion.errors import FailedPreconditionError
from disagfusion.pipeline.model_files import ModelIndex
from disagfusion.pipeline.stage_components import UnknownPipelineError, stage_components
from disagfusion.pipeline.stages import Stage
from disagfusion.weights.listing import RemoteFile
from disagfusion.weights.selection import select

CLIP, T5, FLUX, KL = "CLIPTextModel", "T5EncoderModel", "FluxTransformer2DModel", "AutoencoderKL"
FLUX_INDEX = {
    "_class_name": "FluxPipeline",
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", CLIP],
    "text_encoder_2": ["transformers", T5],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", FLUX],
    "vae": ["diffusers", KL],
}


def index(content: dict[str, Any], *, modular: bool = False) -> ModelIndex:
    return ModelIndex("acme/model", None, modular, content, {}, "v1")


def files(*paths: str) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(path, 1) for path in paths)


def chosen(paths: Sequence[str], components: Sequence[str], variant: str | None = None) -> set[str]:
    content = {name: ["diffusers", "Some"] for name in ("transformer", "vae")}
    return {file.path for file in select(files(*paths), index(content), components, variant)}


SHARDS = [f"transformer/model-0000{n}-of-00002.safetensors" for n in (1, 2)]
SHARDED = [*SHARDS, "transformer/model.safetensors.index.json", "transformer/config.json"]
HALF = [
    "vae/model.fp16.safetensors",
    "vae/model.safetensors.index.fp16.json",
    "vae/model.non_ema.safetensors",
]
OTHERS = [
    *("transformer/model.bin", "transformer/model.onnx", "transformer/flax_model.msgpack"),
    *("transformer/README.md", "README.md", "flow.png", "flux1-schnell.safetensors", "ae.sft"),
]


def test_shards_and_their_index_and_nothing_of_other_formats() -> None:
    assert chosen([*SHARDED, *OTHERS, "model_index.json"], ["transformer"]) == {
        *SHARDED, "model_index.json",
    }  # fmt: skip


def test_of_the_others_only_configurations() -> None:
    paths = [*SHARDED, "vae/config.json", "vae/model.safetensors", "model_index.json"]
    assert chosen(paths, ["vae"]) == {
        "transformer/config.json", "vae/config.json", "vae/model.safetensors", "model_index.json",
    }  # fmt: skip


def test_the_plain_weights_and_no_variant() -> None:
    paths = [*HALF, "vae/model.safetensors"]
    assert "vae/model.safetensors" in chosen(paths, ["vae"])
    assert not {HALF[0], HALF[2]} & chosen(paths, ["vae"])


@pytest.mark.parametrize(
    "name",
    [
        "vae/model.fp16.safetensors",
        "vae/model.fp16-00001-of-00002.safetensors",
        "vae/model-00001-of-00002.fp16.safetensors",
    ],
)
def test_a_variant_where_there_is_one(name: str) -> None:
    weights = chosen([name, "vae/model.safetensors", "vae/config.json"], ["vae"], "fp16")
    assert weights == {name, "vae/config.json"}
    plain = ["transformer/model.safetensors"]
    assert chosen(plain, ["transformer"], "fp16") == set(plain)


def test_pickled_weights_are_refused_where_there_are_no_others() -> None:
    with pytest.raises(FailedPreconditionError, match=r"vae are pickles \(vae/model.bin\)") as it:
        chosen(["vae/model.bin", "vae/config.json"], ["vae"])
    assert it.value.reason == "WEIGHTS_PICKLED"


def test_a_component_without_files_is_named() -> None:
    with pytest.raises(FailedPreconditionError, match="component vae has no files in vae/"):
        chosen(["transformer/config.json"], ["vae"])


def test_components_of_other_repositories_are_refused() -> None:
    content = {"vae": ["diffusers", KL, {"pretrained_model_name_or_path": "acme/vae"}]}
    with pytest.raises(FailedPreconditionError, match="vae is in another repository, acme/vae"):
        select(files("vae/config.json"), index(content, modular=True), ["vae"])


def test_a_components_folder_may_have_another_name() -> None:
    content = {"vae": ["diffusers", KL, {"subfolder": "first_stage"}]}
    found = select(files("first_stage/config.json"), index(content, modular=True), ["vae"])
    assert [file.path for file in found] == ["first_stage/config.json"]


@pytest.mark.parametrize(
    ("stage", "workflows", "components"),
    [
        (Stage.DIT, (), {"scheduler", "transformer"}),
        (Stage.DECODER, (), {"vae"}),
        (
            Stage.ENCODER, (),
            {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"},
        ),
        (
            Stage.ENCODER, ("text2image",),
            {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"},
        ),
    ],
)  # fmt: skip
def test_flux(stage: Stage, workflows: tuple[str, ...], components: set[str]) -> None:
    assert set(stage_components(index(FLUX_INDEX), stage, workflows)) == components


def test_a_workflow_that_the_model_does_not_have_is_named() -> None:
    with pytest.raises(FailedPreconditionError, match="none of the workflows asked for, but"):
        stage_components(index(FLUX_INDEX), Stage.DIT, ("text2music",))


@pytest.mark.parametrize("modular", [True, False])
def test_a_pipeline_that_is_not_known(modular: bool) -> None:
    with pytest.raises(UnknownPipelineError, match="a stage of NewPipeline needs; fetch all"):
        stage_components(index({"_class_name": "NewPipeline"}, modular=modular), Stage.DIT)


def test_an_index_without_a_class() -> None:
    with pytest.raises(FailedPreconditionError, match="no _class_name"):
        stage_components(index({}), Stage.DIT)
