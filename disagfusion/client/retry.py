"""When a call is made again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from disagfusion.errors import DisagfusionError, ResourceExhaustedError, UnavailableError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Back-off with full jitter: before the n-th repetition a random time up to a growing bound.

    See https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/. What the
    service says about when to come back (`retry_after`) is added to it.

    Attributes:
        initial: Seconds that the first bound has.
        multiplier: From one bound to the next.
        maximum: Seconds that no bound exceeds.
    """

    initial: float = 0.1
    multiplier: float = 2.0
    maximum: float = 5.0

    def delay(
        self, repetition: int, error: DisagfusionError, uniform: Callable[[float, float], float]
    ) -> float | None:
        """Return the seconds to wait, or None if the error is not one to try again after.

        Args:
            repetition: From 1.
            error: What the last try raised.
            uniform: Draws from an interval, such as `random.uniform`.
        """
        if not isinstance(error, UnavailableError | ResourceExhaustedError):
            return None
        after = error.retry_after
        # A full queue that does not say when there will be room is an answer, not an accident.
        if after is None and isinstance(error, ResourceExhaustedError):
            return None
        # Beyond 2**60 the bound has long been reached.
        bound = min(self.maximum, self.initial * self.multiplier ** min(repetition - 1, 60))
        return (after or 0.0) + uniform(0.0, bound)


jitter = random.SystemRandom().uniform
"""Draws that two processes with a common ancestor do not share."""
