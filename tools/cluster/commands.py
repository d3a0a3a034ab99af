"""Short commands that run to their end."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tools import commands
from tools.cluster.errors import ClusterError

# Debian keeps administrators' programs where a plain user's PATH does not look.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def environment() -> dict[str, str]:
    """Return the environment with administrators' programs on the PATH."""
    path = os.environ.get("PATH", "/usr/bin:/bin").split(":")
    return {**os.environ, "PATH": ":".join([*path, *(d for d in _SBIN if d not in path)])}


def run(
    *command: str | os.PathLike[str],
    text: str | None = None,
    seconds: float = 120,
    extra: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return what it wrote to its standard output.

    Args:
        command: Program and arguments.
        text: Its standard input.
        seconds: How long it may take.
        extra: More environment variables.

    Raises:
        ClusterError: It is not there, failed or took too long; with the end of what it said.
    """
    return commands.run(
        command,
        error=ClusterError,
        text=text,
        environment={**environment(), **(extra or {})},
        seconds=seconds,
    )


def succeeds(*command: str | os.PathLike[str], seconds: float = 120) -> bool:
    """Tell whether a command is there and ends with success."""
    return commands.succeeds(command, environment=environment(), seconds=seconds)
