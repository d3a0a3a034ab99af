"""A UCX worker driven by the event loop.

ucxx's own progress needs two threads per worker, polls when idle or needs a notifier that must be
stopped by hand, and its requests may not be given up safely. Here the loop watches the worker's
file descriptor, so an idle worker costs nothing, nothing has to be stopped before the process
exits, and a worker whose peer is dead or stopped is destroyed within milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from disagfusion.transport.backends.ucx_native import destroy_worker, label, library, transports

logger = logging.getLogger(__name__)

# A transfer in pieces through shared memory gives no event when room becomes free: look again at
# once while it moves, then at this interval.
_SPIN_SECONDS = 0.0005
_LOOK_SECONDS = 0.001
# Other tasks get their turn after this long.
_TURN_SECONDS = 0.001
_CLOSE_SECONDS = 0.2


class UcxWorker:
    """One worker, to one peer.

    Args:
        context: A `UCXContext`.

    Raises:
        OSError: UCX cannot make a worker.
    """

    def __init__(self, context: Any) -> None:
        self._api = library()
        self._loop = asyncio.get_running_loop()
        try:
            self._worker = self._api.UCXWorker(
                context, enable_delayed_submission=False, enable_python_future=False
            )
            self._worker.init_blocking_progress_mode()
            # ucxx keeps its own and forgets it when the worker is destroyed under it.
            self._descriptor = os.dup(self._worker.epoll_file_descriptor)
        except self._api.UCXError as error:
            raise OSError(f"UCX cannot make a worker: {error}") from error
        self._endpoint: Any = None
        self._pending: list[tuple[Any, asyncio.Future[None], Any]] = []
        self._moved = 0.0
        self._failed = False
        self._again: asyncio.Handle | None = None
        self._open = True
        self._loop.add_reader(self._descriptor, self._progress)
        self._progress()

    @property
    def address(self) -> bytes:
        """The worker's address, for a peer."""
        return bytes(memoryview(self._worker.address))

    @property
    def label(self) -> str:
        """What UCX has chosen towards the peer, such as "ucx/shm"."""
        return label(transports(self._endpoint.handle))

    def connect(self, address: bytes) -> None:
        """Make the endpoint to the peer.

        Args:
            address: Of the peer's worker.

        Raises:
            OSError: UCX finds no way to the peer.
        """
        try:
            self._endpoint = self._api.UCXEndpoint.create_from_worker_address(
                self._worker, self._api.UCXAddress.create_from_buffer(address), True
            )
        except self._api.UCXError as error:
            raise OSError(f"UCX finds no way to the peer: {error}") from error
        self._progress()

    def send(self, view: memoryview, tag: int) -> asyncio.Future[None]:
        """Begin to send; the future ends when the memory is no longer read, or with `OSError`."""
        return self._begin(self._endpoint.tag_send, view, tag)

    def receive(self, view: memoryview, tag: int) -> asyncio.Future[None]:
        """Begin to receive; the future ends when the memory is filled, or with `OSError`."""
        return self._begin(self._worker.tag_recv, view, tag)

    async def aclose(self) -> None:
        """End the worker; UCX touches no memory that was sent from or received into any more."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._descriptor)
        if self._again is not None:
            self._again.cancel()
        if not await self._retire():
            requests = [request for request, _, _ in self._pending]
            logger.warning("ended a UCX worker with %d requests under way", len(requests))
            destroy_worker(self._worker, self._endpoint, *requests)
            os.close(self._worker.epoll_file_descriptor)
        os.close(self._descriptor)
        for _, future, _ in self._pending:
            if not future.done():
                future.cancel()
        self._pending.clear()
        # In this order: an endpoint keeps its worker.
        self._endpoint = None
        self._worker = None

    def _begin(self, submit: Any, view: memoryview, tag: int) -> asyncio.Future[None]:
        from ucxx._lib.arr import Array
        from ucxx.types import Tag

        future: asyncio.Future[None] = self._loop.create_future()
        lost = self._endpoint is not None and not self._endpoint.alive
        if lost or self._failed or not self._open:
            future.set_exception(OSError("the peer is gone"))
            return future
        array = Array(view)
        try:
            request = submit(array, Tag(tag))
        except self._api.UCXError as error:
            future.set_exception(OSError(f"UCX: {error}"))
            return future
        # UCX keeps neither the request's object nor the memory alive.
        self._pending.append((request, future, array))
        self._progress()
        return future

    def _progress(self) -> None:
        if self._failed or not self._open:
            return
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._advance():
            self._again = self._loop.call_soon(self._progress)
        elif self._pending:
            self._again = self._loop.call_later(_LOOK_SECONDS, self._progress)

    def _advance(self) -> bool:
        """Move what can be moved; return whether to go on at once."""
        began = self._loop.time()
        while True:
            moved = self._worker.progress_once()
            self._collect()
            if self._failed:
                return False
            now = self._loop.time()
            if moved:
                self._moved = now
            elif self._pending and now - self._moved < _SPIN_SECONDS:
                return True
            elif self._worker.arm():
                return False
            # UCX may stay busy until the peer moves, and the peer may live in this very loop.
            if now - began > _TURN_SECONDS:
                return True

    def _collect(self) -> None:
        if not any(request.completed for request, _, _ in self._pending):
            return
        pending, self._pending = self._pending, []
        for entry in pending:
            request, future, _ = entry
            if not request.completed:
                self._pending.append(entry)
                continue
            try:
                request.check_error()
            except self._api.UCXError as error:
                # What else a dead peer left behind must not be looked at.
                self._failed = True
                self._loop.remove_reader(self._descriptor)
                if not future.done():
                    future.set_exception(OSError(f"UCX: {error}"))
            else:
                if not future.done():
                    future.set_result(None)

    async def _retire(self) -> bool:
        """Close in good order; return whether that was possible."""
        if self._pending or (self._failed and self._endpoint is None):
            return False
        # A dead endpoint is closed already, and a request to close it crashes when it is looked at.
        if self._endpoint is None or not self._endpoint.alive:
            return True
        request = self._endpoint.close()
        deadline = self._loop.time() + _CLOSE_SECONDS
        while self._endpoint.alive and not request.completed:
            self._worker.progress()
            if self._loop.time() > deadline:
                self._pending.append((request, self._loop.create_future(), None))
                return False
            await asyncio.sleep(0)
        return True
