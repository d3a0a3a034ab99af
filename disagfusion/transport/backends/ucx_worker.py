"""A UCX worker to one peer, moved by the thread that drives UCX; every method is for that thread.

ucxx's own progress needs two threads per worker, polls when idle or needs a notifier that must be
stopped by hand, and its requests may not be given up safely. A worker whose peer is dead or stopped
is destroyed here within milliseconds, with all that was under way on it.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from disagfusion.transport.backends.ucx_native import destroy_worker, label, library, transports
from disagfusion.transport.backends.ucx_transfer import Sending, Transfer

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 0.2
# UCX moves a few pieces each time that it is asked.
_PROGRESS = 8


class UcxWorker:
    """One worker, to one peer.

    Args:
        context: A `UCXContext`.

    Attributes:
        descriptor: Readable when there is something to do for a worker that is armed.
        armed: Whether the descriptor tells.

    Raises:
        OSError: UCX cannot make a worker.
    """

    def __init__(self, context: Any) -> None:
        self._api = library()
        try:
            self._worker = self._api.UCXWorker(
                context, enable_delayed_submission=False, enable_python_future=False
            )
            self._worker.init_blocking_progress_mode()
            # ucxx keeps its own and forgets it when the worker is destroyed under it.
            self.descriptor = os.dup(self._worker.epoll_file_descriptor)
        except self._api.UCXError as error:
            raise OSError(f"UCX cannot make a worker: {error}") from error
        self._endpoint: Any = None
        self._transfer: Transfer | None = None
        self._stream = 0
        self._error: OSError | None = None
        self._closing: Any = None
        self._deadline = 0.0
        self.armed = False

    @property
    def address(self) -> bytes:
        """The worker's address, for a peer."""
        return bytes(memoryview(self._worker.address))

    @property
    def label(self) -> str:
        """What UCX has chosen towards the peer, such as "ucx/shm"."""
        return label(transports(self._endpoint.handle))

    @property
    def busy(self) -> bool:
        """Whether something is under way that may move."""
        return self._closing is not None or (self._transfer is not None and self._error is None)

    @property
    def error(self) -> OSError | None:
        """Why the worker can do nothing any more."""
        return self._error

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

    def begin(self, transfer: Transfer, stream: int) -> None:
        """Move a message, the only one until it is finished.

        Args:
            transfer: Its segments.
            stream: A number that both ends have for it.

        Raises:
            OSError: The worker or its peer has failed.
        """
        if self._error is not None or not self._endpoint.alive:
            raise OSError("the peer is gone")
        self._transfer, self._stream = transfer, stream

    def advance(self) -> bool:
        """Move what can be moved; return whether something was.

        What was under way fails with `error` set.
        """
        if self._error is not None:
            return False
        self.armed = False
        moved = False
        for _ in range(_PROGRESS):
            if not self._worker.progress_once():
                break
            moved = True
        if self._transfer is None:
            return moved
        try:
            moved = self._transfer.step(self._submit) or moved
        except Exception as error:  # noqa: BLE001  # whoever waits for the transfer is told
            reason = f"UCX: {error}"
        else:
            if self._transfer.finished:
                finished, self._transfer = self._transfer, None
                finished.finish()
            return moved
        # Not with the exception, which refers to the memory; and what else a dead peer left
        # behind must not be looked at.
        self._error = OSError(reason)
        return True

    def arm(self) -> bool:
        """Let the descriptor tell; return whether there is nothing to do before."""
        self.armed = self.armed or self._error is not None or bool(self._worker.arm())
        return self.armed

    def close(self) -> bool:
        """Close a bit further; return whether that was the end of it.

        UCX touches no memory that was sent from or received into afterwards.
        """
        if self._closing is None:
            # A dead endpoint is closed, and a request to close it crashes when it is looked at.
            alive = self._endpoint is not None and self._endpoint.alive
            if not alive or (self._transfer is not None and self._transfer.pending):
                self._destroy()
                return True
            self._closing = self._endpoint.close()
            self._deadline = time.monotonic() + _CLOSE_SECONDS
        self._worker.progress_once()
        late = time.monotonic() > self._deadline
        if late or self._closing.completed or not self._endpoint.alive:
            self._destroy()
            return True
        return False

    def _submit(self, view: memoryview, index: int) -> Any:
        from ucxx._lib.arr import Array
        from ucxx.types import Tag

        tag = Tag(self._stream << 32 | index)
        if isinstance(self._transfer, Sending):
            return _Request(self._endpoint.tag_send, Array(view), tag)
        return _Request(self._worker.tag_recv, Array(view), tag)

    def _destroy(self) -> None:
        # Never left to ucxx: it would wait for the rest of a message whose sender has gone.
        requests = [] if self._transfer is None else [it.request for it in self._transfer.pending]
        if requests:
            logger.warning("ended a UCX worker with %d requests under way", len(requests))
        destroy_worker(self._worker, self._endpoint, self._closing, *requests)
        os.close(self._worker.epoll_file_descriptor)
        os.close(self.descriptor)
        self._error = self._error or OSError("the worker is closed")
        # In this order: an endpoint keeps its worker.
        self._transfer = self._closing = None
        self._endpoint = None
        self._worker = None


class _Request:
    """A request of UCX and its memory, of which UCX keeps neither alive."""

    def __init__(self, submit: Any, array: Any, tag: Any) -> None:
        self._array = array
        self.request = submit(array, tag)

    @property
    def completed(self) -> bool:
        """Whether UCX is done with it."""
        return bool(self.request.completed)

    def check_error(self) -> None:
        """Raise what went wrong, if something did."""
        self.request.check_error()
