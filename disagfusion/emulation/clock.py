"""The clock that emulated work takes its time by."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds, and waiting for them to pass."""

    def now(self) -> float:
        """Return the time."""

    def sleep_until(self, deadline: float) -> None:
        """Return at a time; at once where it has passed."""


class MonotonicClock:
    """The kernel's monotonic clock.

    Sleeping to a deadline, and not for a duration, keeps what happens between two sleeps from
    adding up.
    """

    def now(self) -> float:
        """Return the time."""
        return time.monotonic()

    def sleep_until(self, deadline: float) -> None:
        """Sleep to a deadline."""
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(left)
