"""The payloads of one connection, through a UCX worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from disagfusion.transport.backends.link import Digests, Link
from disagfusion.transport.backends.ucx_driver import UcxDriver
from disagfusion.transport.backends.ucx_transfer import Receiving, Sending
from disagfusion.transport.backends.ucx_worker import UcxWorker
from disagfusion.transport.digest import Digest
from disagfusion.transport.frame import Frame

T = TypeVar("T")


class UcxLink(Link):
    """A worker, as a connection uses it.

    Args:
        driver: Moves the worker.
        worker: The worker; the link owns it.
        name: What carries the payload.
        digest: Computes checksums.
        failed: Called when UCX cannot send the first payload.
    """

    inline = False

    def __init__(
        self,
        driver: UcxDriver,
        worker: UcxWorker,
        name: str,
        digest: Digest,
        *,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._driver = driver
        self._worker = worker
        self._name = name
        self._digest = digest
        self._failed = failed
        self._proven = False
        self._sent: asyncio.Future[Digests] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """What carries the payload."""
        return self._name

    async def send(self, stream: int, segments: Sequence[memoryview]) -> Digests:
        """Give UCX all segments, a few at a time."""
        if not segments:
            return ()
        digests, self._sent = self._driver.begin(
            self._worker,
            stream,
            lambda digested, done: Sending(segments, self._digest, digested, done),
        )
        return await self._outcome(digests)

    def eager(
        self, stream: int, segments: Sequence[memoryview]
    ) -> tuple[Sequence[Frame | memoryview], Digests]:
        """Give UCX all segments; the checksums of so little need no other thread."""
        digests = tuple(self._digest(segment) for segment in segments)
        if segments:
            _, self._sent = self._driver.begin(
                self._worker,
                stream,
                lambda digested, done: Sending(segments, lambda view: 0, digested, done),
            )
        return (), digests

    async def sent(self) -> None:
        """Wait for UCX."""
        if self._sent is not None:
            await self._outcome(self._sent)
            self._sent = None
            self._proven = True

    def receive(self, stream: int, views: Sequence[memoryview]) -> Awaitable[Digests]:
        """Give UCX the memory."""
        if not views:
            nothing: asyncio.Future[Digests] = asyncio.get_running_loop().create_future()
            nothing.set_result(())
            return nothing
        _, done = self._driver.begin(
            self._worker,
            stream,
            lambda digested, done: Receiving(views, self._digest, digested, done),
        )
        return done

    async def aclose(self) -> None:
        """End the worker."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._driver.close(self._worker))
        await asyncio.shield(self._closing)

    async def _outcome(self, future: asyncio.Future[T]) -> T:
        try:
            return await future
        except OSError:
            if not self._proven:
                self._failed()
            raise
