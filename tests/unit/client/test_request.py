from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from disagfusion.client import messages, request
from disagfusion.client.types import Generation, InputImage, OutputFormat, Submission
from disagfusion.errors import InvalidArgumentError

PICTURE = Image.new("RGB", (8, 8), "red")


def build(prompt: Any = "a seven", **options: Any) -> Submission:
    return request.build(prompt, options, lambda: "new-id")


def test_what_is_left_out_stays_open() -> None:
    assert build() == Submission(Generation("a seven"), "new-id")


def test_everything_has_its_place() -> None:
    submission = build(
        negative_prompt="grey",
        height=64,
        width=32,
        num_inference_steps=4,
        guidance_scale=3,
        seed=2**64 - 1,
        output_format="jpg",
        timeout=2.5,
        priority=-3,
        client_request_id="mine",
        pipeline="digits",
        strength=0.5,
        parameters={"fps": 8, "none": None, "list": [1, [True, "x"]]},
    )
    assert submission == Submission(
        Generation(
            "a seven",
            "grey",
            height=64,
            width=32,
            num_inference_steps=4,
            guidance_scale=3.0,
            seed=2**64 - 1,
            output_format=OutputFormat.JPEG,
            parameters={"fps": 8, "list": (1, (True, "x")), "strength": 0.5},
        ),
        "mine",
        priority=-3,
        timeout=2.5,
        pipeline="digits",
    )


def test_pictures_come_opened_as_paths_and_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PICTURE.save(path)
    content = path.read_bytes()
    submission = build(image=[PICTURE, path, str(path), content], mask_image=PICTURE)
    images = submission.generation.images
    assert [one.name for one in images] == ["image"] * 4 + ["mask_image"]
    assert images[1:4] == (InputImage("image", content),) * 3
    with Image.open(io.BytesIO(images[0].content)) as decoded:
        assert decoded.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", 7),
        ("prompt", "\ud800"),
        ("negative_prompt", 7),
        ("height", 64.0),
        ("height", True),
        ("width", 2**31),
        ("num_inference_steps", "4"),
        ("guidance_scale", "high"),
        ("seed", -1),
        ("seed", 2**64),
        ("output_format", "gif"),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("timeout", 1e300),
        ("priority", 1.5),
        ("client_request_id", b"x"),
        ("image", 7),
        ("image", "/nonexistent.png"),
        ("image", "nul\0.png"),
        ("image", Image.new("CMYK", (1, 1))),
        ("strength", object()),
        ("strength", 2**63),
        ("strength", [{}]),
    ],
)
def test_what_cannot_be_sent_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        build(**{field: value})
    assert caught.value.field == field


integers = st.none() | st.integers(0, 2**31 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
generations = st.builds(
    Generation,
    prompt=texts,
    negative_prompt=st.none() | texts,
    images=st.lists(st.builds(InputImage, texts, st.binary(max_size=9)), max_size=2).map(tuple),
    height=integers,
    width=integers,
    num_frames=integers,
    num_inference_steps=integers,
    guidance_scale=st.none() | st.floats(allow_nan=False),
    seed=st.none() | st.integers(0, 2**64 - 1),
    num_images_per_prompt=integers,
    output_format=st.none() | st.sampled_from(OutputFormat),
    parameters=st.dictionaries(texts, values, max_size=3),
)


@given(generations)
def test_a_generation_survives_its_message(generation: Generation) -> None:
    message = messages.submit_request(Submission(generation, "id"))
    again = type(message).FromString(message.SerializeToString())
    assert messages.generation_from(again.generation) == generation
