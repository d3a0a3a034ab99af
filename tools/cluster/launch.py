"""Start one program so that it is nobody's child, and say which process it is.

Run by `processes.py` with a request as JSON on standard input: `command`, `environment`, `log`. It
prints the process's number. What it started goes to the first process of the machine when it ends,
so that whoever asked, a test for one, has no child that outlives it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def launch(request: dict[str, Any]) -> int:
    """Start the program in a session of its own and return its process's number.

    Raises:
        OSError: It cannot be started.
    """
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    return os.posix_spawn(
        request["command"][0],
        request["command"],
        request["environment"],
        file_actions=[
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGPIPE],
    )


if __name__ == "__main__":
    try:
        print(launch(json.load(sys.stdin)))
    except OSError as error:
        sys.exit(error.strerror or str(error))
