"""What the kernel knows about a process. Linux only."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import tempfile
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


def provide_home() -> None:
    """Give libraries a home directory and a user name where the system has none for this user.

    In containers users have numbers only, and the root file system cannot be written to; caches
    of compiled kernels and of configurations want both.
    """
    home = os.environ.get("HOME", "")
    if not (home and os.access(home, os.W_OK)):
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", "disagfusion")


def is_stopped(pid: int) -> bool:
    """Tell whether a process was stopped by a signal; False where there is none."""
    return _status(pid)[:1] in (["T"], ["t"])


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has taken; 0 where there is none."""
    status = _status(pid)
    # utime and stime, see proc(5).
    ticks = int(status[11]) + int(status[12]) if status else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _status(pid: int) -> list[str]:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The name stands in parentheses and may hold anything; the state follows the last one.
    return status.rpartition(")")[2].split()
