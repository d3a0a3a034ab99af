"""A small image with python3, for pods of tests, from Debian, without a registry of images."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from tools.cluster import archives, commands
from tools.cluster.errors import ClusterError
from tools.cluster.layout import Layout
from tools.commands import install

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_BUILD_SECONDS = 1200
# So that the same packages give the same image.
_EPOCH = "1700000000"
ENVIRONMENT = ("PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1")


def command(target: Path) -> list[str]:
    """Return the command that writes the base's file system to a tar file."""
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*',
        SUITE,
        str(target),
    ]


def layer(layout: Layout, say: Callable[[str], None] = lambda line: None) -> Path:
    """Return the base's file system as a tar file; built once, kept until its recipe changes.

    Raises:
        ClusterError: mmdebstrap is not there and cannot be installed, or failed.
    """
    recipe = hashlib.sha256(" ".join(command(Path("base.tar"))).encode()).hexdigest()[:12]
    path = layout.root / "cache" / f"base-{recipe}.tar"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if not shutil.which("mmdebstrap"):
        say("installing mmdebstrap with apt-get")
        install(["mmdebstrap"], error=ClusterError)
    say("building the base image, a minute or two")
    partial = path.with_name(f"partial-{path.name}")
    try:
        epoch = {"SOURCE_DATE_EPOCH": _EPOCH}
        commands.run(*command(partial), seconds=_BUILD_SECONDS, extra=epoch)
    except ClusterError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    return path


def build(layout: Layout, say: Callable[[str], None] = lambda line: None) -> Path:
    """Return the archive of the base image, `localhost/base:1`."""
    content = layer(layout, say)
    path = layout.images / "base.tar"
    if not path.exists() or path.stat().st_mtime < content.stat().st_mtime:
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = {"Env": list(ENVIRONMENT), "Cmd": ["python3"]}
        archives.write(path, "localhost/base:1", [content], settings)
    return path
