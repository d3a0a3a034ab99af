"""Running the programs that do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tools import commands
from tools.images.errors import ImageError


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
    return commands.run(
        command, error=ImageError, environment=environment, directory=directory, seconds=timeout
    )


def succeeds(command: Sequence[str], *, timeout: float = 60.0) -> bool:
    """Return whether a program is there and ends with status 0 in time."""
    return commands.succeeds(command, seconds=timeout)
