"""From a `Generation` message to a request by diffusers' names.

The one place where this is done: the gateway judges what it accepts with the same functions with
which an engine reads it. No torch, no files, no clock.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps

from disagfusion.errors import InvalidArgumentError, UnimplementedError
from disagfusion.v1 import generation_pb2 as pb

OPTIONAL_FIELDS = (
    "negative_prompt",
    "height",
    "width",
    "num_frames",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "num_images_per_prompt",
)
FORMATS: Mapping[str, tuple[pb.OutputFormat.ValueType, ...]] = {
    "image": (pb.OUTPUT_FORMAT_PNG, pb.OUTPUT_FORMAT_JPEG, pb.OUTPUT_FORMAT_WEBP),
    "video": (pb.OUTPUT_FORMAT_MP4,),
}
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
_MAX_PARAMETERS = 64
_MAX_LIST = 1024
_MAX_DEPTH = 4


def request_values(generation: pb.Generation) -> dict[str, Any]:
    """Return what a request sets, by diffusers' names.

    Images stand as lists of their encoded bytes; `decode_images` makes pictures of them.

    Raises:
        InvalidArgumentError: A parameter is given twice, has no value, or is nested too deeply.
        UnimplementedError: Adapters are asked for.
    """
    if generation.adapters:
        raise UnimplementedError(
            "adapters: LoRA adapters are not served by this version", reason="ADAPTERS"
        )
    values: dict[str, Any] = {"prompt": generation.prompt}
    for field in OPTIONAL_FIELDS:
        if generation.HasField(field):  # type: ignore[arg-type]
            values[field] = getattr(generation, field)
    for image in generation.images:
        name = image.name or "image"
        if not isinstance(values.setdefault(name, []), list):
            raise InvalidArgumentError(name[:64], "is not an image")
        values[name].append(image.content)
    if len(generation.parameters) > _MAX_PARAMETERS:
        raise InvalidArgumentError(
            "parameters",
            f"{len(generation.parameters)} are given",
            expected=f"at most {_MAX_PARAMETERS}",
        )
    for name, value in generation.parameters.items():
        if name in values or name in OPTIONAL_FIELDS:
            raise InvalidArgumentError(
                name[:64], "has a field of its own", expected="that field instead of a parameter"
            )
        values[name] = _parameter(name, value, 1)
    return values


def _parameter(name: str, value: pb.ParameterValue, depth: int) -> Any:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "string_value":
            return value.string_value
        case "list_value":
            items = value.list_value.values
            if depth >= _MAX_DEPTH or len(items) > _MAX_LIST:
                raise InvalidArgumentError(
                    name[:64],
                    "is too deeply nested or too long",
                    expected=f"at most {_MAX_DEPTH} levels and {_MAX_LIST} values",
                )
            return [_parameter(name, item, depth + 1) for item in items]
        case _:
            raise InvalidArgumentError(name[:64], "has no value", expected="a value")


def decode_images(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with pictures in the place of their encoded bytes.

    As diffusers' `load_image` does it: turned as the camera was held, and in RGB; masks are
    greyscale. One picture stands alone, several are a list.

    Raises:
        InvalidArgumentError: A picture is damaged, or in a format that is not taken.
    """
    decoded = dict(values)
    for name, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], bytes):
            pictures = [_decode_image(name, content) for content in value]
            decoded[name] = pictures if len(pictures) > 1 else pictures[0]
    return decoded


def _decode_image(name: str, content: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
            return upright.convert("L" if "mask" in name else "RGB")
    # Pillow's decoders raise whatever comes to them on damaged files.
    except Exception as error:
        raise InvalidArgumentError(
            name[:64], "cannot be decoded", expected="a PNG, JPEG or WebP image"
        ) from error


def output_format(wanted: pb.OutputFormat.ValueType, output: str) -> pb.OutputFormat.ValueType:
    """Return the format of the results.

    Args:
        wanted: As the request has it.
        output: What the pipeline makes: "image", "video" or "audio".

    Raises:
        InvalidArgumentError: The pipeline's results have no such form.
    """
    allowed = FORMATS.get(output, ())
    if wanted == pb.OUTPUT_FORMAT_UNSPECIFIED and allowed:
        return allowed[0]
    if wanted in allowed:
        return wanted
    raise InvalidArgumentError(
        "output_format",
        f"{_format_name(wanted)} is not for a pipeline that makes {output}s",
        expected=" or ".join(_format_name(choice) for choice in allowed) or "none",
    )


def _format_name(number: pb.OutputFormat.ValueType) -> str:
    if number not in pb.OutputFormat.values():
        return str(number)
    return pb.OutputFormat.Name(number).removeprefix("OUTPUT_FORMAT_")
