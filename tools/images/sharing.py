"""Layers that several images of an OCI layout have in common are compressed once.

What copies an image into a layout asks whether a layer is there by the digest of its content
unpacked, under which a compressed layer never is. So it is told that it is, by an empty file of
that name; and afterwards the image's manifest is given the compressed layer that is meant.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def blob(layout: Path, digest: str) -> Path:
    """Return the file of a digest."""
    return layout / "blobs" / digest.replace(":", "/")


def _read(layout: Path, digest: str) -> Any:
    return json.loads(blob(layout, digest).read_text())


def announce(layout: Path) -> dict[str, dict[str, Any]]:
    """Say of every layer in a layout that it is there unpacked, too.

    Args:
        layout: Holds one image or several, or does not exist yet.

    Returns:
        How manifests refer to each layer, by the digest of its content.
    """
    index = layout / "index.json"
    found: dict[str, dict[str, Any]] = {}
    for entry in json.loads(index.read_text())["manifests"] if index.exists() else ():
        manifest = _read(layout, entry["digest"])
        contents = _read(layout, manifest["config"]["digest"])["rootfs"]["diff_ids"]
        found |= zip(contents, manifest["layers"], strict=True)
    for content in found:
        blob(layout, content).touch()
    return found


def settle(layout: Path, announced: dict[str, dict[str, Any]]) -> None:
    """Take back what was announced, and give manifests the layers that are really there.

    Args:
        layout: One image more has come into it.
        announced: What `announce` returned before.
    """
    index = json.loads((layout / "index.json").read_text())
    for entry in index["manifests"]:
        manifest = _read(layout, entry["digest"])
        layers = [announced.get(layer["digest"], layer) for layer in manifest["layers"]]
        if layers == manifest["layers"]:
            continue
        data = json.dumps({**manifest, "layers": layers}).encode()
        blob(layout, entry["digest"]).unlink()
        entry["digest"] = "sha256:" + hashlib.sha256(data).hexdigest()
        entry["size"] = len(data)
        blob(layout, entry["digest"]).write_bytes(data)
    (layout / "index.json").write_text(json.dumps(index))
    for content, layer in announced.items():
        # A layer that is not compressed has one digest.
        if layer["digest"] != content:
            blob(layout, content).unlink()
