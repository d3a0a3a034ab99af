"""The connections that we made, by the incarnation at their other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from disagfusion.transport.api import PeerAddress
from disagfusion.transport.backends.dialed import Dialed

Dial = Callable[[PeerAddress], Awaitable[Dialed]]


class _Peer:
    def __init__(self, limit: int) -> None:
        self.places = asyncio.Semaphore(limit)
        self.users = 0
        self.idle: list[Dialed] = []


class Pool:
    """Keeps connections between messages.

    Args:
        dial: Makes a connection.
        per_peer: Connections to one peer at the same time; who wants more waits.
        idle_seconds: Connections unused for that long are closed.
    """

    def __init__(self, dial: Dial, *, per_peer: int, idle_seconds: float) -> None:
        self._dial = dial
        self._per_peer = per_peer
        self._idle_seconds = idle_seconds
        self._peers: dict[PeerAddress, _Peer] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> int:
        """Number of connections that are kept."""
        return sum(len(peer.idle) for peer in self._peers.values())

    @asynccontextmanager
    async def connection(self, address: PeerAddress) -> AsyncIterator[Dialed]:
        """Lend a connection to a peer.

        Raises:
            PeerLostError, RefusedError: It cannot be made.
        """
        peer = self._peers.setdefault(address, _Peer(self._per_peer))
        peer.users += 1
        try:
            async with peer.places:
                dialed = self._take(peer) or await self._dial(address)
                try:
                    yield dialed
                finally:
                    if dialed.usable:
                        peer.idle.append(dialed)
                        dialed.rest(self._idle_seconds, lambda it: self._expired(address, it))
        finally:
            peer.users -= 1
            self._forget(address)

    async def aclose(self) -> None:
        """Close all connections that nobody uses."""
        for peer in list(self._peers.values()):
            for dialed in peer.idle:
                dialed.wake()
                self._close(dialed)
            peer.idle.clear()
        await asyncio.gather(*self._closing)

    def _take(self, peer: _Peer) -> Dialed | None:
        while peer.idle:
            dialed = peer.idle.pop()
            if dialed.wake():
                return dialed
            self._close(dialed)
        return None

    def _expired(self, address: PeerAddress, dialed: Dialed) -> None:
        peer = self._peers[address]
        peer.idle.remove(dialed)
        dialed.wake()
        self._close(dialed)
        self._forget(address)

    def _close(self, dialed: Dialed) -> None:
        task = asyncio.ensure_future(dialed.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _forget(self, address: PeerAddress) -> None:
        peer = self._peers.get(address)
        if peer is not None and not peer.users and not peer.idle:
            del self._peers[address]
