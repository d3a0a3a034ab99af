"""Take out of an environment what only a compiler needs, and store equal libraries once.

Usage: python reduce.py DIRECTORY

Wheels cannot hold links, so that some bring each library under three names; and some bring archives
for static linking.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import defaultdict
from pathlib import Path

_FOR_LINKERS = {".a", ".la"}
_LIBRARY = re.compile(r"\.so(\.\d+)*$")


def remove_archives(root: Path) -> int:
    """Remove archives for static linking; return their bytes."""
    removed = 0
    for path in sorted(root.rglob("*")):
        if path.suffix in _FOR_LINKERS and path.is_file() and not path.is_symlink():
            removed += path.stat().st_size
            path.unlink()
    return removed


def link_equal(root: Path) -> int:
    """Replace libraries by links to an equal one beside them; return the bytes saved."""
    alike: dict[tuple[Path, int], list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*.so*")):
        if _LIBRARY.search(path.name) and path.is_file() and not path.is_symlink():
            alike[path.parent, path.stat().st_size].append(path)
    saved = 0
    for (_, size), paths in alike.items():
        first: dict[str, Path] = {}
        # The name with the full version stays a file.
        for path in sorted(paths, key=lambda path: (-len(path.name), path.name)):
            if len(paths) == 1:
                continue
            kept = first.setdefault(_digest(path), path)
            if kept is not path:
                path.unlink()
                os.symlink(kept.name, path)
                saved += size
    return saved


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Run from the command line."""
    root = Path(sys.argv[1])
    removed = remove_archives(root)
    print(
        f"removed {removed >> 20} MiB for linkers, {link_equal(root) >> 20} MiB of equal libraries"
    )


if __name__ == "__main__":
    main()
