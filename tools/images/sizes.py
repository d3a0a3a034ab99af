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
        record: Says how large the files of each are, and how long it took.
    """
    uses = Counter(layer.digest for image in images for layer in image.layers)
    rows = [
        "| image | layers | MB unpacked | MB in the archive | of these its own | built in |",
        "|---|---|---|---|---|---|",
    ]
    for image in images:
        own = sum(layer.size for layer in image.layers if uses[layer.digest] == 1)
        built = record.images.get(image.reference)
        unpacked, seconds = (
            (f"{built.size / 1e6:,.0f}", f"{built.seconds} s") if built else ("", "")
        )
        rows.append(
            f"| `{image.reference}` | {len(image.layers)} | {unpacked} | {image.size / 1e6:,.1f} "
            f"| {own / 1e6:,.1f} | {seconds} |"
        )
    return "\n".join(rows)


def saved(output: Path) -> tuple[SavedImage, ...]:
    """Return what is in the archives of a directory that were made here, by name.

    Raises:
        ImageError: One of them is not an archive of images.
    """
    found = [i for path in output.glob("disagfusion-*.tar") for i in archive.images(path)]
    return tuple(sorted(found, key=lambda image: image.reference))
