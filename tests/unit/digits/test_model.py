"""The checked-in checkpoint."""

import json

import numpy as np
import pytest
import torch
from contact_sheet import contact_sheet
from digitkit.pictures import SIZE
from digitkit.reading import cell_map, ink_map, read_colour
from PIL import Image

STEPS = 8
PROMPTS = {
    "a handwritten seven in red": (7, "red"),
    "the digit 3, blue": (3, "blue"),
    "green zero": (0, "green"),
    "please write 1 with an orange pen": (1, "orange"),
}


@pytest.fixture(scope="module")
def pipeline(model):
    from diffusers import FluxPipeline

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded = FluxPipeline.from_pretrained(model)
    loaded.set_progress_bar_config(disable=True)
    yield loaded
    torch.set_num_threads(threads)


def draw(pipeline, prompts, seed, **options):
    result = pipeline(
        prompts,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(seed + i) for i in range(len(prompts))],
        **{"max_sequence_length": 32, **options},
    )
    return result.images


def test_weights_fit_in_eight_megabytes(model):
    weights = list(model.rglob("*.safetensors"))
    assert len(weights) == 4
    assert sum(path.stat().st_size for path in weights) <= 8_000_000
    assert not [path for path in model.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]


def test_layout_is_that_of_flux(model):
    index = json.loads((model / "model_index.json").read_text())
    assert index["_class_name"] == "FluxPipeline"
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    assert index["text_encoder"] == ["transformers", "CLIPTextModel"]
    assert index["text_encoder_2"] == ["transformers", "T5EncoderModel"]
    assert index["transformer"] == ["diffusers", "FluxTransformer2DModel"]
    assert index["vae"] == ["diffusers", "AutoencoderKL"]


def test_no_file_names_the_machine_it_was_made_on(model):
    for path in model.rglob("*.json"):
        config = json.loads(path.read_text())
        assert not str(config.get("_name_or_path", "")).startswith("/")


def test_pictures_show_the_digit_and_the_colour_asked_for(pipeline, reader):
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    pictures = draw(pipeline, prompts, seed=4_000_000)
    cells = np.stack([cell_map(ink_map(picture)).ravel() for picture in pictures])
    digits = reader.read(cells)
    assert [read_colour(picture) for picture in pictures] == [PROMPTS[p][1] for p in prompts]
    right = np.mean([seen == PROMPTS[p][0] for seen, p in zip(digits, prompts, strict=True)])
    assert right >= 11 / 12, contact_sheet(pictures)
    for picture in pictures:
        grey = np.asarray(picture.convert("L"))
        border = np.concatenate([grey[:2].ravel(), grey[-2:].ravel(), grey[:, 0], grey[:, -1]])
        assert np.median(border) >= 240, "a digit stands on white paper"


def test_ink_is_smooth(pipeline):
    (picture,) = draw(pipeline, ["a black 8"], seed=1)
    pixels = np.asarray(picture, dtype=np.float64)
    assert np.abs(np.diff(pixels.mean(axis=2), axis=1)).max() < 120


def test_the_default_text_length_gives_a_like_picture(pipeline):
    (short,) = draw(pipeline, ["a red 5"], seed=2)
    (long,) = draw(pipeline, ["a red 5"], seed=2, max_sequence_length=512)
    difference = cell_map(ink_map(short)) - cell_map(ink_map(long))
    assert np.abs(difference).mean() < 1.0


def test_a_seed_gives_the_same_picture_and_another_seed_another(pipeline):
    (first,) = draw(pipeline, ["a blue 4"], seed=3)
    (again,) = draw(pipeline, ["a blue 4"], seed=3)
    (other,) = draw(pipeline, ["a blue 4"], seed=5)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_each_text_encoder_matters(pipeline):
    (plain,) = draw(pipeline, ["a blue 4"], seed=3)
    (other_clip,) = draw(pipeline, ["a red 9"], seed=3, prompt_2=["a blue 4"])
    (other_t5,) = draw(pipeline, ["a blue 4"], seed=3, prompt_2=["a red 9"])
    assert len({image.tobytes() for image in (plain, other_clip, other_t5)}) == 3


def test_modular_blocks_load_it_and_agree_bit_for_bit(model, pipeline):
    from diffusers import FluxAutoBlocks, FluxModularPipeline

    modular = FluxModularPipeline(blocks=FluxAutoBlocks(), pretrained_model_name_or_path=str(model))
    modular.load_components()
    modular.set_progress_bar_config(disable=True)
    (expected,) = draw(pipeline, ["a purple 6"], seed=6)
    (picture,) = modular(
        prompt="a purple 6",
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(6),
        output="images",
    )
    assert isinstance(picture, Image.Image)
    assert picture.tobytes() == expected.tobytes()
