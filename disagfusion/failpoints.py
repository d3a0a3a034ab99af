"""Places where a process can be made to die, so that recovery is tested where it is hardest.

A failpoint does nothing unless `DISAGFUSION_FAILPOINT` is set to `NAME@N:MARKER`: then the N-th
pass through the point NAME creates the file MARKER and ends the process with SIGKILL. While MARKER
exists the point does nothing, so the process that replaces this one survives, and a test can
assert that the death took place.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

ENVIRONMENT = "DISAGFUSION_FAILPOINT"
_FORM = re.compile(r"(?P<name>[a-z0-9_.]+)@(?P<pass>[1-9]\d*):(?P<marker>/.+)")


class _Failpoint:
    def __init__(self, text: str) -> None:
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"{ENVIRONMENT}: {text!r} is not of the form NAME@N:/path/of/marker")
        self.name = match["name"]
        self._remaining = int(match["pass"])
        self._marker = Path(match["marker"])

    def reach(self) -> None:
        self._remaining -= 1
        if self._remaining > 0:
            return
        try:
            os.close(os.open(self._marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


_text = os.environ.get(ENVIRONMENT)
_active = _Failpoint(_text) if _text else None


def reach(name: str) -> None:
    """Die here with SIGKILL if the environment asks for it; otherwise do nothing.

    Args:
        name: The point's name, such as `gateway.commit.before`.
    """
    if _active is not None and _active.name == name:
        _active.reach()
