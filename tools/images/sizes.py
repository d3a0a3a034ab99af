"""How large images are, and what of that they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tools.images import archive
from tools.images.archive import SavedImage
from tools.images.record import Record


def table(images: Sequence[SavedImage], record: Record) -> str:
    """Return sizes as a table in Markdown.

    Args:
        images: Of all archives.
        record: Says how long each took.
    """
    uses = Counter(layer.digest for image in images for layer in image.layers)
    rows = ["| image | layers | MB | of these its own | built in |", "|---|---|---|---|---|"]
    for image in images:
        own = sum(layer.size for layer in image.layers if uses[layer.digest] == 1)
        built = record.images.get(image.reference)
        rows.append(
            f"| `{image.reference}` | {len(image.layers)} | {image.size / 1e6:,.0f} "
            f"| {own / 1e6:,.0f} | {f'{built.seconds} s' if built else ''} |"
        )
    return "\n".join(rows)


def saved(output: Path) -> tuple[SavedImage, ...]:
    """Return what is in the archives of a directory that were made here, by name.

    Raises:
        ImageError: One of them is not an archive of images.
    """
    found = [i for path in output.glob("disagfusion-*.tar") for i in archive.images(path)]
    return tuple(sorted(found, key=lambda image: image.reference))
