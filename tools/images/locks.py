"""The locks that images are built from."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.images.catalog import Image, Variant
from tools.images.commands import run
from tools.images.errors import ImageError
from tools.images.places import Places


def lock_for(image: Image, variant: Variant, places: Places, torch_index: str) -> Path:
    """Return the lock of an image.

    The variant for CPUs has no lock in the checkout: its torch is in an index of its own, under the
    same version with a suffix. It is locked here, with everything else as in the other variant.

    Args:
        image: The image.
        variant: Which one.
        places: Where locks are.
        torch_index: The index that has torch for CPUs.

    Raises:
        ImageError: No index is given, or it has no such torch.
    """
    name = f"{image.lock_of(variant)}.txt"
    if image.lock_of(variant) == image.lock:
        return places.requirements / name
    if not torch_index:
        raise ImageError("--torch-index: is missing; expected the index that has torch for CPUs")
    lock = places.cache / "locks" / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    uv = places.root / ".tools" / "bootstrap" / "bin" / "uv"
    run(
        [
            *(str(uv), "pip", "compile", "--quiet", "--generate-hashes", "--no-emit-index-url"),
            *("--python-version", "3.11", "--python", sys.executable),
            *("--index", torch_index, "--index-strategy", "unsafe-best-match"),
            *(str(places.root / "pyproject.toml"), "--extra", image.lock),
            *("--constraints", str(places.requirements / f"{image.lock}.txt")),
            *("--custom-compile-command", "python -m tools.images", "--output-file", str(lock)),
        ]
    )
    return lock
