"""Running the programs that do the work."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.images.errors import ImageError

_LINES = 20


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run a program and return what it wrote to its standard output.

    Args:
        command: Program and arguments.
        environment: Variables in addition to this process's own.
        directory: The one that it works in.
        timeout: Seconds after which it is ended.

    Raises:
        ImageError: It is not there, failed, or took too long; with the end of what it wrote.
    """
    program = os.path.basename(command[0])
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise ImageError(f"{program} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{program} took longer than {timeout:g} s") from error
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_LINES:])
        raise ImageError(f"{program} failed with status {done.returncode}:\n{end}")
    return done.stdout


def succeeds(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> bool:
    """Return whether a program is there and ends with status 0 in time; see `run`."""
    try:
        run(command, environment=environment, timeout=timeout)
    except ImageError:
        return False
    return True
