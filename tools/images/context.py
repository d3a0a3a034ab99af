"""What a build may read: a directory with just that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

_ALWAYS = ("requirements", "Dockerfiles", "dist", "wheels")


def assemble(directory: Path, files: Mapping[str, Iterable[Path]]) -> Path:
    """Make a context anew, of hard links where the file system allows.

    Args:
        directory: The context.
        files: For each directory in it the files that lie there.

    Returns:
        The directory.
    """
    shutil.rmtree(directory, ignore_errors=True)
    for name in _ALWAYS:
        (directory / name).mkdir(parents=True)
    for name, paths in files.items():
        for path in paths:
            _link(path, directory / name / path.name)
    return directory


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
