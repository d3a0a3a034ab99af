"""The supervisor's process as its owner sees it."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disagfusion.errors import UnavailableError
from disagfusion.local.plan import Plan, ProcessStatus


class SupervisorProcess:
    """A supervisor, seen from its owner.

    Args:
        plan: What it is to run.
        locks: Descriptors of locks that it holds for as long as it lives.
    """

    def __init__(self, plan: Plan, locks: Sequence[int] = ()) -> None:
        errors = Path(plan.log_directory) / "supervisor.log"
        ours, theirs = socket.socketpair()
        with theirs, errors.open("ab") as log:
            output = None if plan.echo else log.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "disagfusion.local"],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=output,
                pass_fds=locks,
                # Ctrl-C in a terminal goes to the owner alone, who then ends all in order.
                start_new_session=True,
            )
        self._socket = ours
        self._file = ours.makefile("rb")
        self._lock = threading.Lock()
        self._number = 0
        ours.sendall(plan.to_json().encode() + b"\n")

    def ask(self, command: str, timeout: float = 0.0) -> list[ProcessStatus]:
        """Send one command and return the state of all processes.

        Args:
            command: "status", or "wait" to wait until all are ready or one has been given up.
            timeout: Seconds that "wait" takes at most.

        Raises:
            UnavailableError: The supervisor has ended.
        """
        with self._lock:
            self._number += 1
            request = {"id": self._number, "command": command, "timeout": timeout}
            try:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
                answer: dict[str, Any] = {"id": 0}
                while answer["id"] != self._number:
                    line = self._file.readline()
                    if not line:
                        raise ConnectionResetError
                    answer = json.loads(line)
            except (OSError, ValueError) as error:
                raise UnavailableError(
                    "the embedded runtime has ended", reason="RUNTIME_ENDED"
                ) from error
        return [ProcessStatus.from_dict(entry) for entry in answer["processes"]]

    def end(self, patience: float) -> None:
        """Have it end everything and wait until it has.

        Args:
            patience: Seconds after which it is killed, and its processes with it.
        """
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # it has ended already
                raise
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._file.close()
        self._socket.close()
