"""Judging what is asked for before it is accepted."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from disagfusion.errors import InvalidArgumentError, UnimplementedError
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.v1 import generation_pb2 as pb

MAX_CLIENT_REQUEST_ID = 128
MAX_PRIORITY = 100
_MAX_PARAMETERS = 64
_MAX_LIST = 1024
_MAX_DEPTH = 4

_OPTIONAL_FIELDS = (
    "negative_prompt",
    "height",
    "width",
    "num_frames",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "num_images_per_prompt",
)
_FORMATS = {
    "image": (pb.OUTPUT_FORMAT_PNG, pb.OUTPUT_FORMAT_JPEG, pb.OUTPUT_FORMAT_WEBP),
    "video": (pb.OUTPUT_FORMAT_MP4,),
}
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")

# Pictures are measured before they are decoded, see _check_image.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds of input images.

    Attributes:
        count: Images of one request.
        encoded_bytes: Of one image.
        pixels: Of one image.
    """

    count: int
    encoded_bytes: int
    pixels: int


def request_values(generation: pb.Generation) -> dict[str, Any]:
    """Return what a request sets, by diffusers' names; images stand as their encoded bytes.

    Raises:
        InvalidArgumentError: A parameter is given twice, is not a value or is nested too deeply.
    """
    values: dict[str, Any] = {"prompt": generation.prompt}
    for field in _OPTIONAL_FIELDS:
        if generation.HasField(field):  # type: ignore[arg-type]
            values[field] = getattr(generation, field)
    for image in generation.images:
        values.setdefault(image.name or "image", []).append(image.content)
    if len(generation.parameters) > _MAX_PARAMETERS:
        raise InvalidArgumentError(
            "parameters",
            f"{len(generation.parameters)} are given",
            expected=f"at most {_MAX_PARAMETERS}",
        )
    for name, value in generation.parameters.items():
        if name in values or name in _OPTIONAL_FIELDS:
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


def check_envelope(request: pb.SubmitJobRequest, *, max_timeout: float) -> None:
    """Judge what surrounds the generation.

    Args:
        request: The request.
        max_timeout: Seconds.

    Raises:
        InvalidArgumentError: Naming the field.
    """
    if not -MAX_PRIORITY <= request.priority <= MAX_PRIORITY:
        raise InvalidArgumentError(
            "priority", f"is {request.priority}", expected=f"{-MAX_PRIORITY} to {MAX_PRIORITY}"
        )
    if len(request.client_request_id) > MAX_CLIENT_REQUEST_ID:
        raise InvalidArgumentError(
            "client_request_id",
            f"has {len(request.client_request_id)} characters",
            expected=f"at most {MAX_CLIENT_REQUEST_ID}",
        )
    if request.HasField("timeout"):
        seconds = request.timeout.seconds + request.timeout.nanos / 1e9
        if not 0 < seconds <= max_timeout:
            raise InvalidArgumentError(
                "timeout",
                f"is {seconds:g} seconds",
                expected=f"more than 0 and at most {max_timeout:g} seconds",
            )


async def check_generation(
    generation: pb.Generation, spec: PipelineSpec, limits: ImageLimits
) -> dict[str, Any]:
    """Judge a request; images are decoded in a thread.

    Returns:
        What the request sets, by diffusers' names.

    Raises:
        InvalidArgumentError: Naming the field and what was expected.
        UnimplementedError: Adapters are asked for.
    """
    if generation.adapters:
        raise UnimplementedError(
            "adapters: LoRA adapters are not served by this version", reason="ADAPTERS"
        )
    _check_images(generation, limits)
    values = request_values(generation)
    spec.validate(values)
    _check_format(generation, spec)
    for image in generation.images:
        await asyncio.to_thread(_check_image, image.name or "image", image.content, limits)
    return values


def cost_key(values: dict[str, Any], spec: PipelineSpec) -> str:
    """Return what makes two complete requests take about as long: sizes, steps and inputs."""
    full = {**spec.defaults, **values}
    sizes = [
        f"{name}={full[name]}"
        for name in ("height", "width", "num_frames", "num_inference_steps")
        if isinstance(full.get(name), int)
    ]
    count = full.get("num_images_per_prompt", 1)
    return " ".join([spec.workflow_of(values).name, *sizes, f"images={count}"])


def _check_images(generation: pb.Generation, limits: ImageLimits) -> None:
    if len(generation.images) > limits.count:
        raise InvalidArgumentError(
            "images", f"{len(generation.images)} are given", expected=f"at most {limits.count}"
        )
    for image in generation.images:
        if len(image.content) > limits.encoded_bytes:
            raise InvalidArgumentError(
                image.name[:64] or "image",
                f"has {len(image.content)} bytes",
                expected=f"at most {limits.encoded_bytes}",
            )


def _check_format(generation: pb.Generation, spec: PipelineSpec) -> None:
    wanted = generation.output_format
    if wanted == pb.OUTPUT_FORMAT_UNSPECIFIED:
        return
    allowed = _FORMATS.get(spec.output, ())
    if wanted not in allowed:
        names = " or ".join(_format_name(choice) for choice in allowed)
        raise InvalidArgumentError(
            "output_format",
            f"{_format_name(wanted)} is not for a pipeline of {spec.output}s",
            expected=names or "none",
        )


def _format_name(number: pb.OutputFormat.ValueType) -> str:
    if number not in pb.OutputFormat.values():
        return str(number)
    return pb.OutputFormat.Name(number).removeprefix("OUTPUT_FORMAT_")


def _check_image(name: str, content: bytes, limits: ImageLimits) -> None:
    expected = "a PNG, JPEG or WebP image"
    try:
        with Image.open(io.BytesIO(content), formats=_IMAGE_FORMATS) as image:
            pixels = image.width * image.height
            if pixels <= limits.pixels:
                image.load()
                return
    # Pillow's decoders raise whatever comes to them on damaged files.
    except Exception as error:
        raise InvalidArgumentError(name, "cannot be decoded", expected=expected) from error
    raise InvalidArgumentError(
        name, f"has {pixels} pixels", expected=f"at most {limits.pixels} pixels"
    )
