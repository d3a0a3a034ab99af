"""The time of day by which jobs are timed."""

from __future__ import annotations

import time


class SteadyClock:
    """Unix seconds from a given time on, which neither jump nor go back.

    Whatever sets the machine's own clock meanwhile, what is to happen after some seconds does.

    Args:
        now: Unix seconds.
    """

    def __init__(self, now: float) -> None:
        self._zero = now - _elapsed()

    def __call__(self) -> float:
        """Return Unix seconds."""
        return self._zero + _elapsed()


def _elapsed() -> float:
    # Unlike the monotonic clock it goes on while the machine sleeps, as deadlines do.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
