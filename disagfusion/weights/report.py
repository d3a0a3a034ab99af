"""What a fetch says about itself: one JSON object per line."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import TextIO


class Report:
    """Writes phases.

    Args:
        stream: Where to.
        now: The time in Unix seconds.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._now = now
        self.started = now()

    def phase(self, name: str, **details: object) -> None:
        """Write a phase.

        Args:
            name: Which.
            details: What is known about it.
        """
        line = {"phase": name, "seconds": round(self._now() - self.started, 3), **details}
        with self._lock:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()
