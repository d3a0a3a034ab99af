"""The base where no registry of images can be reached, and the packages that building needs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from tools import commands
from tools.images.commands import run
from tools.images.engines import Build, Engine
from tools.images.errors import ImageError
from tools.images.places import Places

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "libstdc++6", "python3", "python3-venv")
REPOSITORY = "localhost/disagfusion-debian"
_LEFT_OUT = ("doc", "info", "lintian", "locale", "man")


def bootstrap_command(rootfs: Path) -> list[str]:
    """Return the command that makes a root file system with Python and without a package manager.

    Args:
        rootfs: The tar file that it is written to.
    """
    return [
        *("mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(PACKAGES)}"),
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *("--customize-hook=rm -rf $1/var/cache $1/var/log $1/var/lib/apt", SUITE, str(rootfs)),
    ]


def reference() -> str:
    """Return the full name of the base that is made here, which tells how it is made."""
    command = " ".join(bootstrap_command(Path("rootfs.tar")))
    return f"{REPOSITORY}:{SUITE}-{hashlib.sha256(command.encode()).hexdigest()[:8]}"


def install(programs: dict[str, str], say: Callable[[str], None]) -> None:
    """Install Debian packages whose programs are missing.

    Args:
        programs: Names of programs, and the package of each.
        say: Told what is installed.

    Raises:
        ImageError: This is not Debian, the user is not root, or apt failed.
    """
    missing = sorted({pkg for program, pkg in programs.items() if not shutil.which(program)})
    if not missing:
        return
    say(f"installing from Debian: {' '.join(missing)}")
    commands.install(missing, error=ImageError)


def make_base(engine: Engine, places: Places, say: Callable[[str], None]) -> str:
    """Return the id of the base that is made here; once made it is kept.

    Args:
        engine: What keeps it.
        places: Where its root file system is made.
        say: Told what takes long.

    Raises:
        ImageError: It cannot be made here.
    """
    name = reference()
    if found := engine.find(name):
        return found
    install({"mmdebstrap": "mmdebstrap"}, say)
    say(f"making a base of Debian {SUITE}, a minute or two")
    context = places.contexts / "debian"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    # The same packages make the same files.
    run(bootstrap_command(context / "rootfs.tar"), environment={"SOURCE_DATE_EPOCH": "0"})
    engine.build(Build(places.dockerfiles / "debian.Dockerfile", context, name))
    shutil.rmtree(context)
    return engine.find(name)
