"""Running other programs to their end, and having Debian's where they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_LAST_LINES = 20
_SHOWN_ARGUMENTS = 8
_UPDATE_SECONDS = 300.0
_INSTALL_SECONDS = 900.0
# Asks nothing, and starts no service that comes with a package.
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    error: type[Exception],
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    seconds: float | None = None,
) -> str:
    """Run a program and return what it wrote to its standard output.

    Args:
        command: Program and arguments.
        error: Raised where it is not there, failed or took too long, with the end of what it wrote.
        text: Its standard input.
        environment: Variables in addition to this process's own.
        directory: The one that it works in.
        seconds: How long it may take.
    """
    arguments = [os.fspath(part) for part in command]
    program = os.path.basename(arguments[0])
    try:
        done = subprocess.run(
            arguments,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as problem:
        raise error(f"{arguments[0]} is not installed") from problem
    except subprocess.TimeoutExpired as problem:
        what = f"{program} took longer than {seconds:g} s"
        raise error(f"{what}{_shown(arguments)}") from problem
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_LAST_LINES:])
        what = f"{program} failed with status {done.returncode}"
        raise error(f"{what}:\n{end}{_shown(arguments)}")
    return done.stdout


def succeeds(
    command: Sequence[str | os.PathLike[str]],
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float,
) -> bool:
    """Return whether a program is there and ends with status 0 in time; see `run`."""
    try:
        run(command, error=_FailedError, environment=environment, seconds=seconds)
    except _FailedError:
        return False
    return True


def install(packages: Sequence[str], *, error: type[Exception]) -> None:
    """Install Debian packages, without starting what they bring as services.

    Args:
        packages: Their names; nothing happens where there are none.
        error: Raised where this is not Debian, the user is not root, or apt-get failed.
    """
    if not packages:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        names = ", ".join(packages)
        raise error(
            f"these Debian packages are missing: {names}; only root can install them, and only on "
            "Debian: install them, or what this system calls them, and try again"
        )
    command = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *packages]
    if not succeeds(command, environment=_QUIET, seconds=_INSTALL_SECONDS):
        update = ["apt-get", "update", "--quiet=2"]
        run(update, error=error, environment=_QUIET, seconds=_UPDATE_SECONDS)
        run(command, error=error, environment=_QUIET, seconds=_INSTALL_SECONDS)


class _FailedError(Exception):
    """It did not work; why is of no interest."""


def _shown(arguments: Sequence[str]) -> str:
    more = " …" if len(arguments) > _SHOWN_ARGUMENTS else ""
    return f"\n({' '.join(arguments[:_SHOWN_ARGUMENTS])}{more})"
