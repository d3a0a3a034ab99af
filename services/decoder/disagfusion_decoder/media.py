"""Pictures and videos as files: PNG, JPEG, WebP and MP4."""

from __future__ import annotations

import enum
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from disagfusion.errors import InvalidArgumentError


class MediaFormat(enum.StrEnum):
    """How a result is encoded; the value is its content type."""

    PNG = "image/png"
    JPEG = "image/jpeg"
    WEBP = "image/webp"
    MP4 = "video/mp4"


@dataclass(frozen=True, slots=True)
class Media:
    """One encoded result.

    Attributes:
        content: The file.
        content_type: Such as "image/png".
        height: Pixels.
        width: Pixels.
        num_frames: 1 for a picture.
    """

    content: bytes
    content_type: str
    height: int
    width: int
    num_frames: int


_IMAGE_OPTIONS: Mapping[MediaFormat, Mapping[str, Any]] = {
    # A lower level than Pillow's 6 is some percent larger and several times as fast.
    MediaFormat.PNG: {"format": "PNG", "compress_level": 3},
    MediaFormat.JPEG: {"format": "JPEG", "quality": 95, "subsampling": 0},
    MediaFormat.WEBP: {"format": "WEBP", "lossless": True},
}


def encode_outputs(
    outputs: Mapping[str, Any], media_format: MediaFormat | None, *, fps: float
) -> list[Media]:
    """Encode what the decoder stage of a pipeline returned.

    Args:
        outputs: `images`: pictures, possibly in lists of lists; or `videos`: one sequence of
            frames each, as PIL images or as an array of shape (frames, height, width, 3) with
            values in 0–1 or uint8.
        media_format: PNG for images and MP4 for videos where None.
        fps: Frames per second of videos.

    Raises:
        InvalidArgumentError: The format is not one for this kind of output.
    """
    if outputs.get("images") is not None:
        chosen = media_format or MediaFormat.PNG
        if chosen not in _IMAGE_OPTIONS:
            raise InvalidArgumentError(
                "output_format", f"{chosen.value} cannot hold an image", expected="PNG, JPEG, WEBP"
            )
        return [encode_image(frame, chosen) for frame in _flat(outputs["images"])]
    chosen = media_format or MediaFormat.MP4
    if chosen is not MediaFormat.MP4:
        raise InvalidArgumentError(
            "output_format", f"{chosen.value} cannot hold a video", expected="MP4"
        )
    return [encode_video(_flat(video), fps=fps) for video in outputs["videos"]]


def encode_image(image: Image.Image, media_format: MediaFormat) -> Media:
    """Encode one picture; the same pixels always give the same bytes."""
    if media_format is MediaFormat.JPEG and image.mode != "RGB":
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, **_IMAGE_OPTIONS[media_format])
    return Media(buffer.getvalue(), media_format.value, image.height, image.width, 1)


def encode_video(frames: Sequence[Image.Image], *, fps: float) -> Media:
    """Encode frames of one size as H.264 in MP4; an odd edge is repeated, 4:2:0 needs even ones."""
    if not frames:
        raise InvalidArgumentError("num_frames", "the video has no frame", expected="at least 1")
    width, height = frames[0].size
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"}
        # The codec's own default follows the machine's cores, and with it the bytes.
        stream.codec_context.thread_count = 1
        for frame in frames:
            pixels = np.asarray(frame.convert("RGB"))
            even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    return Media(buffer.getvalue(), MediaFormat.MP4.value, height, width, len(frames))


def _flat(value: Any) -> list[Image.Image]:
    """Return the pictures of a nested list or of an array, in order."""
    if isinstance(value, Image.Image):
        return [value]
    if isinstance(value, (list, tuple)):
        return [image for item in value for image in _flat(item)]
    array = np.asarray(value)
    if array.ndim > 3:
        return [image for item in array for image in _flat(item)]
    if array.dtype != np.uint8:
        array = (array.clip(0, 1) * 255).round().astype(np.uint8)
    return [Image.fromarray(array)]
