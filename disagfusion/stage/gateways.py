"""The gateways that are connected, by session and by name. Pure."""

from __future__ import annotations

from typing import Any

from disagfusion.stage.actions import Tell
from disagfusion.stage.jobs import Recent
from disagfusion.v1 import stage_pb2

_REMEMBERED = 1024


class Gateways:
    """Who is connected. A gateway that comes back under its name takes over what was its own.

    Attributes:
        replaced: Gateways whose jobs another has taken over: they are not heard any more.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._sessions: dict[str, str] = {}
        self._demand: dict[str, bool] = {}
        self._served: dict[str, int] = {}
        self._serial = 0
        self.replaced = Recent[str, None](_REMEMBERED)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def sessions(self) -> tuple[str, ...]:
        """All sessions, oldest first."""
        return tuple(self._names)

    def add(self, session: str, name: str, *, demand: bool = True) -> None:
        """Enter a session.

        Args:
            session: New.
            name: The gateway.
            demand: Whether it has use for grants, until it says something else.
        """
        self._names[session] = name
        self._sessions[name] = session
        self._demand[session] = demand

    def remove(self, session: str) -> None:
        """Forget a session."""
        name = self._names.pop(session, None)
        self._demand.pop(session, None)
        self._served.pop(session, None)
        if name is not None and self._sessions.get(name) == session:
            del self._sessions[name]

    def set_demand(self, session: str, demand: bool) -> None:
        """Take note of whether a session has use for grants."""
        if session in self._demand:
            self._demand[session] = demand

    def demands(self, session: str) -> bool:
        """Tell whether a session has use for grants."""
        return self._demand.get(session, False)

    def serve(self, session: str) -> None:
        """Take note that a session gets a grant."""
        self._serial += 1
        self._served[session] = self._serial

    def served(self, session: str) -> int:
        """Return when a session got its last grant, as a number that grows; 0: never."""
        return self._served.get(session, 0)

    def name_of(self, session: str) -> str:
        """Return a session's gateway; empty where it is not connected."""
        return self._names.get(session, "")

    def session_of(self, name: str) -> str | None:
        """Return the session of a gateway, None where it is not connected."""
        return self._sessions.get(name)

    def connected(self, name: str) -> bool:
        """Tell whether a gateway of this name is connected."""
        return name in self._sessions

    def tell(self, owner: str, **message: Any) -> list[Tell]:
        """Return the action that tells a gateway something; none where it is not connected.

        What it misses it learns from the hello when it comes back.
        """
        session = self._sessions.get(owner)
        return [] if session is None else [Tell(session, stage_pb2.WorkResponse(**message))]

    def tell_all(self, **message: Any) -> list[Tell]:
        """Return the actions that tell everybody."""
        return [Tell(session, stage_pb2.WorkResponse(**message)) for session in self._names]
