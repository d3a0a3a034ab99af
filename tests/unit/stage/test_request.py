from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from disagfusion.errors import InvalidArgumentError, UnimplementedError
from disagfusion.stage.request import decode_images, output_format, request_values
from disagfusion.v1 import generation_pb2 as pb


def picture(mode: str = "RGB", kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (4, 2), 3).save(buffer, kind, **options)
    return buffer.getvalue()


def test_only_what_is_set_is_there() -> None:
    assert request_values(pb.Generation(prompt="p")) == {"prompt": "p"}
    full = pb.Generation(
        prompt="p", negative_prompt="", height=8, width=8, num_frames=1, num_inference_steps=2,
        guidance_scale=0.0, seed=2**64 - 1, num_images_per_prompt=1,
    )  # fmt: skip
    values = request_values(full)
    assert values["seed"] == 2**64 - 1
    assert values["guidance_scale"] == 0.0
    assert values["negative_prompt"] == ""
    assert len(values) == 9


def test_parameters_keep_their_types() -> None:
    asked = pb.Generation(prompt="p")
    asked.parameters["a"].bool_value = False
    asked.parameters["b"].int_value = 0
    asked.parameters["c"].double_value = 0.0
    asked.parameters["d"].string_value = ""
    for number in (1, 2):
        asked.parameters["e"].list_value.values.add().int_value = number
    values = request_values(asked)
    assert [type(values[name]) for name in "abcd"] == [bool, int, float, str]
    assert values["e"] == [1, 2]


def deep(levels: int) -> pb.ParameterValue:
    value = pb.ParameterValue(int_value=1)
    for _ in range(levels):
        value = pb.ParameterValue(list_value=pb.ParameterList(values=[value]))
    return value


def spoiled(how: str) -> pb.Generation:
    asked = pb.Generation(prompt="p", height=8)
    match how:
        case "given twice":
            asked.parameters["height"].int_value = 16
        case "a field's name":
            asked.parameters["seed"].int_value = 16
        case "no value":
            asked.parameters["x"].SetInParent()
        case "too deep":
            asked.parameters["x"].CopyFrom(deep(5))
        case "too long":
            asked.parameters["x"].list_value.values.extend([deep(0)] * 1025)
        case "too many":
            for number in range(65):
                asked.parameters[f"p{number}"].int_value = 1
        case "an image of that name":
            asked.images.add(name="prompt", content=picture())
        case "an image and a parameter":
            asked.images.add(content=picture())
            asked.parameters["image"].int_value = 1
    return asked


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ("given twice", "height"),
        ("a field's name", "seed"),
        ("no value", "x"),
        ("too deep", "x"),
        ("too long", "x"),
        ("too many", "parameters"),
        ("an image of that name", "prompt"),
        ("an image and a parameter", "image"),
    ],
)
def test_what_is_wrong_is_named(how: str, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as wrong:
        request_values(spoiled(how))
    assert wrong.value.field == field


def test_adapters_are_not_served() -> None:
    with pytest.raises(UnimplementedError):
        request_values(pb.Generation(prompt="p", adapters=[pb.Adapter(id="a")]))


def test_images_are_decoded_as_diffusers_does() -> None:
    asked = pb.Generation(prompt="p")
    asked.images.add(content=picture("RGBA"))
    asked.images.add(name="mask_image", content=picture("L"))
    asked.images.add(name="references", content=picture(kind="WEBP"))
    asked.images.add(name="references", content=picture(kind="JPEG"))
    values = decode_images(request_values(asked))
    assert (values["image"].mode, values["image"].size) == ("RGB", (4, 2))
    assert values["mask_image"].mode == "L"
    assert [image.mode for image in values["references"]] == ["RGB", "RGB"]
    assert values["prompt"] == "p"


def test_an_image_is_turned_as_the_camera_was_held() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    asked = pb.Generation(prompt="p")
    asked.images.add(content=picture(kind="JPEG", exif=exif))
    assert decode_images(request_values(asked))["image"].size == (2, 4)


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", picture()[:40], picture(kind="GIF"), picture(kind="JPEG")[:40]]
)
def test_a_corrupt_image_is_named(content: bytes) -> None:
    asked = pb.Generation(prompt="p")
    asked.images.add(name="last_image", content=content)
    with pytest.raises(InvalidArgumentError) as wrong:
        decode_images(request_values(asked))
    assert wrong.value.field == "last_image"


def test_output_formats() -> None:
    assert output_format(pb.OUTPUT_FORMAT_UNSPECIFIED, "image") == pb.OUTPUT_FORMAT_PNG
    assert output_format(pb.OUTPUT_FORMAT_UNSPECIFIED, "video") == pb.OUTPUT_FORMAT_MP4
    assert output_format(pb.OUTPUT_FORMAT_WEBP, "image") == pb.OUTPUT_FORMAT_WEBP
    for wanted, output in [
        (pb.OUTPUT_FORMAT_MP4, "image"),
        (pb.OUTPUT_FORMAT_PNG, "video"),
        (pb.OUTPUT_FORMAT_UNSPECIFIED, "audio"),
        (99, "image"),
    ]:
        with pytest.raises(InvalidArgumentError) as wrong:
            output_format(wanted, output)  # type: ignore[arg-type]
        assert wrong.value.field == "output_format"
