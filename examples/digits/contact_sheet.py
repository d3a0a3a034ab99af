"""Put pictures with captions on one sheet.

    python examples/digits/contact_sheet.py -o sheet.png one.png two.png …

``contact_sheet`` is the same as a function; it needs nothing but Pillow.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_GAP = 12
_CAPTION_HEIGHT = 16
_PAPER, _TEXT, _FRAME = "#f6f6f4", "#333333", "#d8d8d4"


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont, width: int) -> str:
    """Shorten a caption until it fits."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def contact_sheet(
    pictures: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    columns: int = 6,
    cell: int = 128,
) -> Image.Image:
    """Arrange pictures in rows, each in a square with its caption below.

    Args:
        pictures: at least one; enlarged or reduced to fit, never cut or distorted.
        captions: one for each picture, or none at all; long ones are shortened.
        columns: pictures per row.
        cell: side of a picture's square in pixels.

    Returns:
        The sheet, RGB.

    Raises:
        ValueError: no picture, or another number of captions than of pictures.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"{len(captions)} captions for {len(pictures)} pictures")
    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns)
    caption_height = _CAPTION_HEIGHT if captions else 0
    pitch_x, pitch_y = cell + _GAP, cell + caption_height + _GAP
    sheet = Image.new("RGB", (columns * pitch_x + _GAP, rows * pitch_y + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    for index, picture in enumerate(pictures):
        left = _GAP + index % columns * pitch_x
        top = _GAP + index // columns * pitch_y
        scale = cell / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        fitted = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        corner = (left + (cell - size[0]) // 2, top + (cell - size[1]) // 2)
        sheet.paste(fitted, corner)
        draw.rectangle((left - 1, top - 1, left + cell, top + cell), outline=_FRAME)
        if captions:
            caption = _fit(draw, captions[index], font, cell)
            draw.text((left + cell / 2, top + cell + 3), caption, _TEXT, font=font, anchor="ma")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--columns", type=int, default=6)
    args = parser.parse_args()
    opened = []
    for path in args.pictures:
        with Image.open(path) as picture:
            opened.append(picture.convert("RGB"))
    contact_sheet(opened, [path.stem for path in args.pictures], args.columns).save(args.output)


if __name__ == "__main__":
    main()
