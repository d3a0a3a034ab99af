"""What the kernel knows about a process. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGKILL to this process when the thread that started it ends.

    If the parent has gone already, this process ends here.

    Args:
        parent: The parent's process id as it was before this process was started.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Tell whether a process was stopped by a signal; False where there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The name stands in parentheses and may hold anything; the state follows the last one.
    return status.rpartition(")")[2].split()[0] in ("T", "t")
