"""What an image is made of, as one digest: the same digest, nothing to build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path


def of_file(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_inputs(files: Iterable[Path], values: Mapping[str, str]) -> str:
    """Return the digest of files, by name and content, and of values.

    Args:
        files: In any order; their directories do not matter.
        values: Whatever else decides what comes out.
    """
    parts = {"files": {path.name: of_file(path) for path in files}, "values": dict(values)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
