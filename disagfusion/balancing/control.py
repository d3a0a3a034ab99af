"""The supervisor's control socket, seen from the balancer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from disagfusion.errors import FailedPreconditionError, UnavailableError
from disagfusion.local.plan import ProcessStatus

_LIMIT = 1 << 24


class SupervisorControl:
    """Asks the supervisor, one connection for each question.

    Args:
        path: Its unix socket.
        patience: Seconds that an answer may take.
    """

    def __init__(self, path: str, patience: float) -> None:
        self._path = path
        self._patience = patience

    async def status(self) -> list[ProcessStatus]:
        """Return what each process does.

        Raises:
            UnavailableError: There is no answer.
        """
        return await self._ask(command="status")

    async def start(self, name: str, role: str) -> list[ProcessStatus]:
        """Start a process in a role.

        Raises:
            FailedPreconditionError: It runs, or cannot have the role.
            UnavailableError: There is no answer.
        """
        return await self._ask(command="start", name=name, role=role)

    async def stop(self, name: str) -> list[ProcessStatus]:
        """Let a process end, after it has done what it has.

        Raises:
            UnavailableError: There is no answer.
        """
        return await self._ask(command="stop", name=name)

    async def assign(self, name: str, role: str) -> list[ProcessStatus]:
        """Let a process be something else from its next start on.

        Raises:
            FailedPreconditionError: It cannot have the role.
            UnavailableError: There is no answer.
        """
        return await self._ask(command="assign", name=name, role=role)

    async def _ask(self, **question: str) -> list[ProcessStatus]:
        try:
            async with asyncio.timeout(self._patience):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=_LIMIT)
                try:
                    writer.write(json.dumps(question).encode() + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError, TimeoutError) as error:
            raise UnavailableError(f"the supervisor does not answer: {error}") from error
        if "error" in answer:
            raise FailedPreconditionError(str(answer["error"]), reason="REFUSED")
        return [ProcessStatus.from_dict(entry) for entry in answer["processes"]]
