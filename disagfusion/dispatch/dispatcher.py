"""The dispatcher: events in, actions out."""

from __future__ import annotations

from collections.abc import Collection

from disagfusion.dispatch.actions import Action
from disagfusion.dispatch.events import Event
from disagfusion.dispatch.settings import DispatchSettings, Load


class Dispatcher:
    """Decides who runs what next.

    Args:
        settings: How it behaves.
        now: Unix seconds at the start; recovery is timed from here.
        expected_workers: Names of the workers that are known to exist: recovery ends early once
            all of them have said hello.
    """

    def __init__(
        self,
        settings: DispatchSettings | None = None,
        *,
        now: float,
        expected_workers: Collection[str] = (),
    ) -> None:
        self._settings = settings or DispatchSettings()
        self._now = now
        self._expected = set(expected_workers)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take note of an event and return what has to be done, in order.

        Args:
            event: What happened.
            now: Unix seconds; never goes back (an earlier time counts as the latest one seen).
        """
        self._now = max(self._now, now)
        return []

    def next_wakeup(self) -> float | None:
        """Return when `Tick` has to be given at the latest, or None when nothing is timed."""
        return None

    def load(self, tenant: str) -> Load:
        """Return what admission has to know about this moment."""
        return Load(queued=0, unfinished_of_tenant=0, seconds_per_job=0.0)
