"""How a process ends that is the first one of a container.

Imports nothing but the standard library: it is used before anything else is imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

ENVIRONMENT = "DISAGFUSION_TERMINATION_LOG"
# Where Kubernetes looks by default, and how much of it it takes.
_DEFAULT = "/dev/termination-log"
_LIMIT = 4096


def end_on_sigterm() -> None:
    """Let SIGTERM end the process, with status 0, until it handles that signal itself.

    The kernel ignores for a container's first process what would end any other one, so that a
    process that is still importing would be waited for until the end of its grace period.
    """
    signal.signal(signal.SIGTERM, _end)


def explain(message: str) -> None:
    """Write why the process ends, or does not work, to where Kubernetes looks for it.

    Nothing happens where there is no such file: it is never made.

    Args:
        message: For people; "" where nothing is wrong any more.
    """
    path = os.environ.get(ENVIRONMENT) or _DEFAULT
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, message.encode()[:_LIMIT])
        finally:
            os.close(descriptor)


def fail(message: str) -> int:
    """Say why the process ends, on the standard error and to Kubernetes; return its status, 1."""
    explain(message)
    print(message, file=sys.stderr)
    return 1


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
