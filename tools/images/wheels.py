"""What is installed into images: the wheel of the checkout, and the packages of a lock."""

from __future__ import annotations

import platform
import runpy
import shutil
import sys
from pathlib import Path

from tools.images import digests
from tools.images.commands import run
from tools.images.errors import ImageError
from tools.images.places import Places

PYTHON = (3, 11)
"""Of the images."""
BOOTSTRAP = "bootstrap"
"""The lock of the installer."""


def version(places: Places) -> str:
    """Return the version of the checkout."""
    found = runpy.run_path(str(places.root / "disagfusion" / "version.py"))["__version__"]
    return str(found)


def revision(places: Places) -> str:
    """Return the commit that is checked out; empty where that is not known."""
    try:
        return run(["git", "-C", str(places.root), "rev-parse", "HEAD"]).strip()
    except ImageError:
        return ""


def build_wheel(places: Places) -> Path:
    """Build the wheel of the checkout; the same files make the same bytes."""
    shutil.rmtree(places.dist, ignore_errors=True)
    places.dist.mkdir(parents=True)
    hatchling = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    run([*hatchling, "-d", str(places.dist)], directory=places.root)
    (wheel,) = places.dist.glob("*.whl")
    return wheel


def can_fetch() -> bool:
    """Return whether this interpreter chooses the packages that the images need."""
    return sys.platform == "linux" and sys.version_info[:2] == PYTHON and _is_glibc()


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def fetch(lock: Path, places: Places, index: str = "") -> Path:
    """Fetch the packages of a lock, as this machine's own pip is configured to.

    They are kept. Each is checked against the lock's hash, here and again when it is installed.

    Args:
        lock: A file with hashes.
        places: Where they are kept.
        index: A further index to take packages from.

    Returns:
        The directory that they are in.

    Raises:
        ImageError: A package is not to be had.
    """
    directory = places.wheels / f"{lock.stem}-{digests.of_file(lock)[:12]}"
    if directory.exists():
        return directory
    pip = places.root / ".tools" / "bootstrap" / "bin" / "python"
    temporary = directory.with_suffix(".new")
    run(
        [
            *(str(pip), "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
            *(("--extra-index-url", index) if index else ()),
            *("--dest", str(temporary), "--requirement", str(lock)),
        ]
    )
    for old in places.wheels.glob(f"{lock.stem}-*"):
        if old != temporary and old.stem.rpartition("-")[0] == lock.stem:
            shutil.rmtree(old)
    temporary.rename(directory)
    return directory
