"""Judging what is asked for before it is accepted."""

from __future__ import annotations

import asyncio
import io
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from disagfusion.errors import InvalidArgumentError, NotFoundError
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.rpc.channel import MAX_MESSAGE_BYTES
from disagfusion.stage.request import IMAGE_FORMATS, output_format, request_values
from disagfusion.v1 import generation_pb2 as pb

MAX_CLIENT_REQUEST_ID = 128
MAX_PRIORITY = 100
MAX_GENERATION_BYTES = MAX_MESSAGE_BYTES - 2**20
"""Of a request: what a worker is given is larger by the job's id, its grant and the like."""
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Threads of their own: a decoded picture takes up to four bytes per pixel, and whoever has gone
# meanwhile does not end the decoding.
_DECODING = ThreadPoolExecutor(2, "image")
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


def check_job_id(job_id: str) -> None:
    """Judge the id of a job before anybody is asked for it: a database need not take every text.

    Raises:
        NotFoundError: No job can have it.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise NotFoundError(f"there is no job {job_id[:80]!r}")


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
    if "\0" in request.client_request_id:
        raise InvalidArgumentError(
            "client_request_id", "contains a NUL character", expected="text without NUL"
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
    """Judge a request; images are decoded in threads, two at a time.

    Returns:
        What the request sets, by diffusers' names.

    Raises:
        InvalidArgumentError: Naming the field and what was expected.
        UnimplementedError: Adapters are asked for.
    """
    _check_images(generation, limits)
    values = request_values(generation)
    spec.validate(values)
    if generation.output_format != pb.OUTPUT_FORMAT_UNSPECIFIED:
        output_format(generation.output_format, spec.output)
    loop = asyncio.get_running_loop()
    for image in generation.images:
        name = image.name or "image"
        await loop.run_in_executor(_DECODING, _check_image, name, image.content, limits)
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
    if (size := generation.ByteSize()) > MAX_GENERATION_BYTES:
        raise InvalidArgumentError(
            "images" if generation.images else "generation",
            f"with all else the request has {size} bytes",
            expected=f"at most {MAX_GENERATION_BYTES}",
        )


def _check_image(name: str, content: bytes, limits: ImageLimits) -> None:
    expected = "a PNG, JPEG or WebP image"
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
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
