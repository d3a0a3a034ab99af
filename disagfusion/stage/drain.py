"""When a worker that takes no new work may end. Pure: the time is passed in."""

from __future__ import annotations


class Drain:
    """Waits until all is done and what was made is released, but not for ever.

    A gateway that is away may come back within this time: it is what they wait for.

    Args:
        patience: Seconds that outputs may wait for their release, once the last job has ended.
        now: The time.

    Attributes:
        begun: When draining began; None: it has not.
        over: Whether the worker may end.
    """

    def __init__(self, patience: float, now: float) -> None:
        self._patience = patience
        self._idle_since: float | None = now
        self.begun: float | None = None
        self.over = False

    def wakeup(self) -> float | None:
        """Return when `check` has to be called without any event."""
        since = self._waits_since
        return None if since is None or self.over else since + self._patience

    def check(self, *, working: bool, holding: bool, now: float) -> bool:
        """Return whether it has come to its end just now.

        Args:
            working: Whether there is a job.
            holding: Whether outputs are held.
            now: The time.
        """
        if working:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        due = self.wakeup()
        self.over = self.over or (due is not None and (not holding or now >= due))
        return self.over and due is not None

    @property
    def _waits_since(self) -> float | None:
        if self.begun is None or self._idle_since is None:
            return None
        return max(self.begun, self._idle_since)
