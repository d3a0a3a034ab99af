"""What both ends of a connection keep in mind, without I/O and without a clock."""

from __future__ import annotations

import hmac
from collections import OrderedDict

from disagfusion.transport.api import RefusalReason, RefusedError
from disagfusion.transport.frame import Hello


def check_hello(hello: Hello, *, incarnation: str, token: bytes, backend: str) -> None:
    """Decide whether a connecting side may come in.

    Args:
        hello: What it said.
        incarnation: Ours.
        token: The secret that our address carries.
        backend: Ours.

    Raises:
        RefusedError: The token is wrong (`UNKNOWN_GRANT`), it looks for another incarnation
            (`STALE`), or it speaks for another backend (`MALFORMED`).
    """
    if not hmac.compare_digest(hello.token, token):
        raise RefusedError(RefusalReason.UNKNOWN_GRANT, "the address's token is wrong")
    if hello.expected != incarnation:
        raise RefusedError(RefusalReason.STALE, "another incarnation lives here now")
    if hello.backend != backend:
        raise RefusedError(RefusalReason.MALFORMED, f"this is {backend}, not {hello.backend}")


class Liveness:
    """When to give a sign of life during a hand-over, and when to give the peer up.

    Both ends send a beat at each interval, whether or not anything was asked: payload may keep a
    connection so busy that an answer would come too late, but not that it is silent.

    Args:
        interval: Seconds between two beats.
        limit: Seconds without any byte after which the peer is given up.
    """

    def __init__(self, *, interval: float, limit: float) -> None:
        self.interval = interval
        self._limit = limit
        self._begun = 0.0

    def begin(self, now: float) -> None:
        """Note that a hand-over begins: silence before it does not count."""
        self._begun = now

    def lost(self, heard: float, now: float) -> bool:
        """Tell whether the peer has been silent for too long.

        Args:
            heard: When the last byte came.
            now: Now, on the same monotonic clock.
        """
        return now - max(heard, self._begun) >= self._limit


class Ledger:
    """Which messages a receiver has seen, so that none is taken twice.

    A message is named by its sender's incarnation and its id. One that was dropped may come again,
    one that is under way or was delivered may not. The oldest names are forgotten first; a grant
    protects against repetitions older than that.

    Args:
        limit: Names that are remembered.
    """

    def __init__(self, limit: int = 16384) -> None:
        self._limit = limit
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def enter(self, sender: str, message_id: str) -> None:
        """Note a message that is offered.

        Raises:
            RefusedError: It is under way or was delivered (`STALE`).
        """
        if (sender, message_id) in self._seen:
            raise RefusedError(RefusalReason.STALE, "the message came before")
        self._seen[sender, message_id] = None
        while len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def forget(self, sender: str, message_id: str) -> None:
        """Note that a message was refused or dropped."""
        self._seen.pop((sender, message_id), None)
