"""What a build may read: a directory with just that."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_ALWAYS = ("requirements", "Dockerfiles", "dist", "wheels")


@contextlib.contextmanager
def assembled(directory: Path, files: Mapping[str, Iterable[Path]]) -> Iterator[Path]:
    """Make a context, of hard links where the file system allows, for as long as it is needed.

    Args:
        directory: The context.
        files: For each directory in it the files that lie there.
    """
    shutil.rmtree(directory, ignore_errors=True)
    for name in _ALWAYS:
        (directory / name).mkdir(parents=True)
    for name, paths in files.items():
        for path in paths:
            _link(path, directory / name / path.name)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
