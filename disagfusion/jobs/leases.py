"""Which gateways are dead, as far as another can tell. Pure; knows no clock.

A gateway is dead when it has said so, or when its beats have not gone on in so many looks in a row.
Looks are counted and not seconds, and only those at which the store has answered: after the store
was away, or this gateway was stopped, nobody is dead because time has passed in which nobody could
beat. Others may find a store that was away again later than this gateway does.
"""

from __future__ import annotations

from collections.abc import Mapping

RESIGNED = -1
"""Stands for the beats of a gateway that has given its jobs up."""


class Leases:
    """Follows the beats of all gateways.

    Args:
        looks: How many in a row without a beat mean death; at least one.
    """

    def __init__(self, looks: int) -> None:
        if looks < 1:
            raise ValueError("a death takes at least one look")
        self._looks = looks
        self._silent: dict[str, tuple[int, int]] = {}
        self._more = 0

    def forgive(self, more: int) -> None:
        """Forget silence, since the store was away; the next one may last so many looks more."""
        self._silent = {}
        self._more = more

    def observe(self, beats: Mapping[str, int]) -> dict[str, int]:
        """Take note of how often each gateway has beaten; return those that are dead."""
        silent = {}
        for name, count in beats.items():
            last, looks = self._silent.get(name, (count, -1 - self._more))
            silent[name] = (count, looks + 1) if last == count else (count, 0)
        self._silent, self._more = silent, 0
        return {
            name: count
            for name, (count, looks) in silent.items()
            if looks >= self._looks or count == RESIGNED
        }
