"""Places where a process can be made to die, so that recovery is tested where it is hardest.

Nothing happens unless the environment variable `DISAGFUSION_FAILPOINTS` names a directory. Then a
file NAME in it arms the point NAME: it holds a number, and the pass through the point that counts
it down to zero renames the file to NAME.reached and ends the process with SIGKILL. So a point can
be armed while the process runs, the process that replaces it survives, and a test can assert that
the death took place.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

ENVIRONMENT = "DISAGFUSION_FAILPOINTS"

_directory = os.environ.get(ENVIRONMENT)


def reach(name: str) -> None:
    """Die here with SIGKILL if the point is armed; otherwise do nothing.

    Args:
        name: The point's name, such as `store.commit.before`.
    """
    if _directory is not None:
        _count_down(Path(_directory, name))


def _count_down(armed: Path) -> None:
    try:
        passes = int(armed.read_text())
    except FileNotFoundError:
        return
    if passes > 1:
        armed.write_text(str(passes - 1))
        return
    armed.rename(armed.with_name(f"{armed.name}.reached"))
    os.kill(os.getpid(), signal.SIGKILL)


def configure() -> None:
    """Read the environment again: a forked process has the points of its own, not its parent's."""
    global _directory
    _directory = os.environ.get(ENVIRONMENT)
