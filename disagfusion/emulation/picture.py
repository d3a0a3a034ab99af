"""What an emulated decoder returns: a small picture that says what it is."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from disagfusion.v1 import generation_pb2 as pb

WIDTH, HEIGHT = 384, 96
_MARGIN, _LINE = 8, 16
_FORMATS = {
    pb.OUTPUT_FORMAT_PNG: "PNG",
    pb.OUTPUT_FORMAT_JPEG: "JPEG",
    pb.OUTPUT_FORMAT_WEBP: "WEBP",
}


def draw(lines: Sequence[str], chosen: pb.OutputFormat.ValueType) -> bytes:
    """Return a picture of some lines of text as a file.

    A PNG also has the lines as text, under "emulated".

    Args:
        lines: What it says.
        chosen: PNG, JPEG or WebP.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), (24, 24, 32))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default()
    for number, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + number * _LINE), line, (232, 232, 240), font=font)
    file, text = io.BytesIO(), PngInfo()
    text.add_text("emulated", "\n".join(lines))
    options = {"pnginfo": text} if chosen == pb.OUTPUT_FORMAT_PNG else {}
    picture.save(file, _FORMATS[chosen], **options)
    return file.getvalue()


def output_of(content: bytes, index: int, chosen: pb.OutputFormat.ValueType) -> pb.Output:
    """Return what is said about a picture."""
    return pb.Output(
        index=index,
        content_type=f"image/{_FORMATS[chosen].lower()}",
        size_bytes=len(content),
        height=HEIGHT,
        width=WIDTH,
        num_frames=1,
        sha256=hashlib.sha256(content).hexdigest(),
    )
