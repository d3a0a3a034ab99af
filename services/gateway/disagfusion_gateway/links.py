"""The links to all workers, found by address or by DNS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection

from disagfusion.dispatch import events
from disagfusion.telemetry.logging import get_logger
from disagfusion_gateway.link import LinkSettings, WorkerLink
from disagfusion_gateway.sessions import Sessions
from disagfusion_gateway.settings import WorkerAddress

_ABSENT_SECONDS = 15.0
"""For so long a link that is idle is kept when DNS has its address no more: names are
cached, and a worker that changes its stage may be under none for a moment."""

_log = get_logger(__name__)


class WorkerLinks:
    """Keeps a link to every worker.

    Args:
        addresses: Where the workers are.
        settings: What all links have in common.
        sessions: Where sessions are entered.
        post: Takes the events.
        resolve_interval: Seconds between two look-ups of a DNS name.
    """

    def __init__(
        self,
        addresses: Collection[WorkerAddress],
        settings: LinkSettings,
        sessions: Sessions,
        post: Callable[[events.Event], None],
        *,
        resolve_interval: float,
    ) -> None:
        self._addresses = addresses
        self._settings = settings
        self._sessions = sessions
        self._post = post
        self._resolve_interval = resolve_interval

    async def run(self) -> None:
        """Keep the links until cancelled."""
        names = [one.address for one in self._addresses if one.dns]
        async with asyncio.TaskGroup() as group:
            for one in self._addresses:
                if not one.dns:
                    group.create_task(self._link(one.address).run())
            if names:
                group.create_task(self._follow(names, group))

    def _link(self, address: str) -> WorkerLink:
        return WorkerLink(address, self._settings, self._sessions, self._post)

    async def _follow(self, names: Collection[str], group: asyncio.TaskGroup) -> None:
        """Keep a link to each address behind some DNS names.

        A worker that changes its stage goes from one name to another and keeps its link.
        """
        links: dict[str, tuple[WorkerLink, asyncio.Task[None]]] = {}
        seen: dict[str, float] = {}
        clock = asyncio.get_running_loop().time
        while True:
            found = set[str]().union(*await asyncio.gather(*map(_resolve, names)))
            seen |= dict.fromkeys(found, clock())
            for address in found - links.keys():
                link = self._link(address)
                links[address] = link, group.create_task(link.run())
            # A worker may leave DNS before it has finished, and a look-up may fail.
            for address in links.keys() - found:
                link, task = links[address]
                if link.idle and clock() - seen[address] >= _ABSENT_SECONDS:
                    task.cancel()
                    del links[address], seen[address]
            await asyncio.sleep(self._resolve_interval)


async def _resolve(name: str) -> set[str]:
    host, _, port = name.rpartition(":")
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM
        )
    except OSError as error:
        _log.warning("name not resolved", name=name, problem=error.strerror or str(error))
        return set()
    addresses = {str(answer[4][0]) for answer in answers}
    return {f"[{found}]:{port}" if ":" in found else f"{found}:{port}" for found in addresses}
