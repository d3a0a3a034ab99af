"""Log files of supervised processes, bounded in size."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LIMIT_BYTES = 16 * 1024 * 1024


class LogFile:
    """What a process says, in a file and, if wanted, on standard error with its name in front.

    A file that reaches the limit becomes NAME.log.1, in the place of an older one.

    Args:
        path: The file, NAME.log.
        echo: Whether to repeat it on standard error.
        limit_bytes: Size at which the file is put aside.
    """

    def __init__(self, path: Path, *, echo: bool = False, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._echo = echo
        self._limit_bytes = limit_bytes
        self._prefix = f"{path.stem} | ".encode()
        self._partial = b""
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Append; a full disk loses the data rather than the process that wrote it."""
        if self._size >= self._limit_bytes:
            os.close(self._descriptor)
            self.path.replace(self.path.with_suffix(".log.1"))
            self._open()
        try:
            self._size += os.write(self._descriptor, data)
        except OSError as error:
            self._say(f"{self.path}: {error.strerror}\n".encode())
        if self._echo:
            *lines, self._partial = (self._partial + data).split(b"\n")
            self._say(b"".join(self._prefix + line + b"\n" for line in lines))

    def _say(self, data: bytes) -> None:
        try:
            sys.stderr.buffer.write(data)
            sys.stderr.buffer.flush()
        except OSError:
            self._echo = False  # the terminal has gone; the file has it all

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log that have something in them.

    Args:
        path: The log; it may not exist.
        count: How many at most.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
