"""How a step of a reconcile ended."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Kind(enum.IntEnum):
    """From best to worst."""

    OK = 0
    WAITS = 1
    """For something that happens by itself."""
    FAILED = 2
    """Somebody has to do something, or it mends itself when it is tried again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended.

    Attributes:
        kind: How well.
        reason: One word for programs.
        message: A sentence for people.
    """

    kind: Kind = Kind.OK
    reason: str = ""
    message: str = ""


OK = Outcome()


def waits(reason: str, message: str) -> Outcome:
    """Return that a step waits."""
    return Outcome(Kind.WAITS, reason, message)


def failed(reason: str, message: str) -> Outcome:
    """Return that a step failed."""
    return Outcome(Kind.FAILED, reason, message)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the worst, the first of equals."""
    return max(outcomes, key=lambda outcome: outcome.kind, default=OK)
