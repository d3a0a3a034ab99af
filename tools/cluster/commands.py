"""Short commands that run to their end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

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
        ClusterError: It is not there, failed or took too long; with what it said.
    """
    arguments = [os.fspath(part) for part in command]
    try:
        done = subprocess.run(
            arguments,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**environment(), **(extra or {})},
            check=False,
        )
    except FileNotFoundError:
        raise ClusterError(f"{arguments[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{_shown(arguments)}: not done within {seconds:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise ClusterError(f"{_shown(arguments)}: status {done.returncode}: {said}")
    return done.stdout


def succeeds(*command: str | os.PathLike[str], seconds: float = 120) -> bool:
    """Tell whether a command is there and ends with success."""
    try:
        run(*command, seconds=seconds)
    except ClusterError:
        return False
    return True


def _shown(arguments: Sequence[str]) -> str:
    return " ".join(arguments[:8]) + (" …" if len(arguments) > 8 else "")
