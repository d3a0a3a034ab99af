"""The gateways that are connected, by session and by name. Pure."""

from __future__ import annotations

from typing import Any

from disagfusion.stage.actions import Tell
from disagfusion.v1 import stage_pb2


class Gateways:
    """Who is connected. A gateway that comes back under its name takes over what was its own."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._sessions: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._names)

    @property
    def sessions(self) -> tuple[str, ...]:
        """All sessions, oldest first."""
        return tuple(self._names)

    def add(self, session: str, name: str) -> None:
        """Enter a session."""
        self._names[session] = name
        self._sessions[name] = session

    def remove(self, session: str) -> None:
        """Forget a session."""
        name = self._names.pop(session, None)
        if name is not None and self._sessions.get(name) == session:
            del self._sessions[name]

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
