"""The thread that drives UCX, so that no transfer and no checksum holds up the event loop.

While something is under way it looks at every worker that is busy in turn, and naps where nothing
moves; otherwise it sleeps until UCX or the event loop has something for it.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from disagfusion.transport.backends.ucx_transfer import Transfer
from disagfusion.transport.backends.ucx_worker import UcxWorker

logger = logging.getLogger(__name__)

T = TypeVar("T")
Digested = Callable[[tuple[int, ...]], None]

# A transfer through shared memory gives no event when room becomes free. So look between naps,
# which the system makes some 60 microseconds long, and more seldom when nothing has moved for a
# while. Without naps the event loop would wait for the interpreter's lock for milliseconds.
_NAP_SECONDS = 0.00001
_NAPPING_SECONDS = 0.05
_SELDOM_SECONDS = 0.01
_EXIT_SECONDS = 1.0


class UcxDriver:
    """A thread, and the way to it from the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._commands: deque[Callable[[], None]] = deque()
        self._asleep = False
        self._stopped = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._workers: dict[int, UcxWorker] = {}
        self._busy: dict[int, UcxWorker] = {}
        # Those of them that are being closed, and what to do then.
        self._closing: dict[int, Callable[[], None]] = {}
        # What to do when a worker fails, and the transfer with it.
        self._failing: dict[int, Callable[[OSError], None]] = {}
        self._thread = threading.Thread(target=self._run, name="transport-ucx", daemon=True)
        self._thread.start()
        # A thread that is in UCX while the process tears it down crashes it.
        atexit.register(self._stop)

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function in the thread; return what it returns, raise what it raises.

        It runs to its end even where the caller is cancelled.
        """
        future: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001  # raised where it was called
                self._tell(_reject, future, error)
            else:
                self._tell(_resolve, future, result)

        self._post(run)
        return await future

    async def open(self, context: Any) -> UcxWorker:
        """Return a worker.

        Raises:
            OSError: UCX cannot make it.
        """
        made: list[UcxWorker] = []

        def make() -> UcxWorker:
            worker = UcxWorker(context)
            self._workers[worker.descriptor] = worker
            self._epoll.register(worker.descriptor, select.EPOLLIN)
            made.append(worker)
            return worker

        try:
            return await self.call(make)
        except asyncio.CancelledError:
            # Nobody else knows of it.
            self._post(lambda: self._close(made.pop(), lambda: None) if made else None)
            raise

    def begin(
        self,
        worker: UcxWorker,
        stream: int,
        make: Callable[[Digested, Digested], Transfer],
    ) -> tuple[asyncio.Future[tuple[int, ...]], asyncio.Future[tuple[int, ...]]]:
        """Move a message.

        Args:
            worker: Through this one, on which nothing else is under way.
            stream: The number of the message on it.
            make: Makes the transfer, given what it calls with the checksums and at its end.

        Returns:
            Its checksums, as soon as they are known; and the same when UCX touches the memory no
            more. Both fail with `OSError`.
        """
        digests: asyncio.Future[tuple[int, ...]] = self._loop.create_future()
        done: asyncio.Future[tuple[int, ...]] = self._loop.create_future()

        def fail(error: OSError) -> None:
            self._tell(_reject, digests, error)
            self._tell(_reject, done, error)

        def run() -> None:
            transfer = make(
                lambda values: self._tell(_resolve, digests, values),
                lambda values: self._tell(_resolve, done, values),
            )
            try:
                worker.begin(transfer, stream)
            except OSError as error:
                fail(error)
            else:
                self._failing[worker.descriptor] = fail
                self._busy[worker.descriptor] = worker

        self._post(run)
        return digests, done

    async def close(self, worker: UcxWorker) -> None:
        """End a worker; UCX touches no memory of its transfer any more."""
        closed: asyncio.Future[None] = self._loop.create_future()
        self._post(lambda: self._close(worker, lambda: self._tell(_resolve, closed, None)))
        await asyncio.shield(closed)

    async def aclose(self) -> None:
        """End the thread; all workers are closed."""
        atexit.unregister(self._stop)
        self._stop()
        # What the thread has told the event loop last.
        await asyncio.sleep(0)
        if self._thread.is_alive():
            # It may still use them, and their numbers must not be somebody else's.
            logger.error("the thread that drives UCX does not end")
            return
        self._epoll.close()
        os.close(self._wake)

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        if self._asleep:
            os.eventfd_write(self._wake, 1)

    def _stop(self) -> None:
        self._stopped = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(_EXIT_SECONDS)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The event loop has ended, and with it whoever waits.
            logger.debug("nobody waits for UCX any more")

    # In the thread.

    def _run(self) -> None:
        moved = time.monotonic()
        while not self._stopped:
            acted = bool(self._commands)
            while self._commands:
                self._obey(self._commands.popleft())
            for worker in tuple(self._busy.values()):
                acted = self._advance(worker) or acted
            now = time.monotonic()
            if acted:
                moved = now
            elif not self._busy:
                self._sleep(None)
            elif now - moved < _NAPPING_SECONDS:
                time.sleep(_NAP_SECONDS)
            else:
                self._sleep(_SELDOM_SECONDS)

    @staticmethod
    def _obey(command: Callable[[], None]) -> None:
        try:
            command()
        except Exception:
            # The thread serves others too.
            logger.exception("the thread that drives UCX was asked for something impossible")

    def _advance(self, worker: UcxWorker) -> bool:
        descriptor = worker.descriptor
        if descriptor in self._closing:
            if worker.close():
                del self._workers[descriptor], self._busy[descriptor]
                self._closing.pop(descriptor)()
            return True
        acted = worker.advance()
        if not worker.busy:
            self._busy.pop(descriptor, None)
        if worker.error is not None:
            self._epoll.unregister(descriptor)
            fail = self._failing.pop(descriptor, None)
            if fail is not None:
                fail(worker.error)
        return acted

    def _sleep(self, seconds: float | None) -> None:
        for worker in self._workers.values():
            if not worker.arm():
                self._advance(worker)
                return
        self._asleep = True
        # Whoever posts a command after this sees that we sleep.
        if not self._commands and not self._stopped:
            for descriptor, _ in self._epoll.poll(seconds):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                elif descriptor in self._workers:
                    self._advance(self._workers[descriptor])
        self._asleep = False

    def _close(self, worker: UcxWorker, closed: Callable[[], None]) -> None:
        descriptor = worker.descriptor
        self._failing.pop(descriptor, None)
        if worker.error is None:
            self._epoll.unregister(descriptor)
        self._busy.pop(descriptor, None)
        if worker.close():
            del self._workers[descriptor]
            closed()
        else:
            self._closing[descriptor] = closed
            self._busy[descriptor] = worker


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # Not everyone looks at both futures of a transfer.
        future.exception()
