"""What transports that wrap another have in common."""

from __future__ import annotations

from disagfusion.transport.api import PeerAddress, Transport


class TransportWrapper(Transport):
    """Is where the wrapped transport is; how it sends is up to who derives from it.

    Args:
        inner: The wrapped transport, which starts and closes with this one.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.backend = inner.backend

    @property
    def address(self) -> PeerAddress:
        """The wrapped transport's."""
        return self._inner.address

    async def start(self) -> None:
        """Start the wrapped transport."""
        await self._inner.start()

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._inner.aclose()
