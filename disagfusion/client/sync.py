"""The SDK for programs without asyncio: the asynchronous one, run by a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from disagfusion.client.aio import AsyncClient, AsyncJobHandle, EventCallback
from disagfusion.client.result import GenerationResult
from disagfusion.client.retry import RetryPolicy
from disagfusion.client.transport import ClientTransport
from disagfusion.client.types import GenerationOptions, Job, JobEvent, JobState, Pipeline
from disagfusion.errors import FailedPreconditionError

if TYPE_CHECKING:
    from disagfusion.rpc.tls import TlsSettings

__all__ = ["Client", "JobHandle"]

T = TypeVar("T")

_LAST_WORDS_SECONDS = 5.0


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._calls: set[Future[Any]] = set()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="disagfusion-client", daemon=True
        )
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether nothing can be run any more."""
        return self._loop.is_closed()

    @property
    def here(self) -> bool:
        """Whether the calling thread is the loop's own."""
        return threading.current_thread() is self._thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; an interruption of the caller cancels it."""
        if self.here or self.closed:
            coroutine.close()
            problem = "closed" if self.closed else "called from within its own callback"
            raise FailedPreconditionError(f"the client is {problem}")
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def settle(self) -> None:
        """End all calls, and give what they still have to do a moment."""
        for call in tuple(self._calls):
            call.cancel()
        self.run(self._settle())

    async def _settle(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LAST_WORDS_SECONDS)
            for task in late:
                task.cancel()
        await self._loop.shutdown_asyncgens()

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        if not self.here:  # a garbage collection may come this way
            self._thread.join()
            self._loop.close()


class _Connection:
    """An `AsyncClient` and the loop it lives in."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self.pid = os.getpid()
        self.loop = _Loop()
        try:
            # gRPC's channels belong to the loop that is running when they are made.
            self.client = self.loop.run(_called(make))
        except BaseException:
            self.loop.stop()
            raise

    def close(self) -> None:
        """Close both; a process that was forked from the owner has neither."""
        if os.getpid() != self.pid:
            return
        if not self.loop.here:
            self.loop.settle()
            self.loop.run(self.client.close())
        self.loop.stop()


async def _called(make: Callable[[], T]) -> T:
    return make()


async def _next(iterator: AsyncIterator[T]) -> tuple[T] | None:
    async for item in iterator:
        return (item,)
    return None


async def _close(generator: AsyncGenerator[T, None]) -> None:
    await generator.aclose()


class JobHandle:
    """A job that was submitted. Its methods are those of `AsyncJobHandle`."""

    def __init__(self, client: Client, handle: AsyncJobHandle) -> None:
        self._client = client
        self._handle = handle

    @property
    def id(self) -> str:
        """The job's identifier."""
        return self._handle.id

    @property
    def job(self) -> Job:
        """The job as it was last seen."""
        return self._handle.job

    def refresh(self) -> Job:
        """Ask for the job's present state and return it."""
        return self._client._run(lambda _: self._handle.refresh())  # noqa: SLF001

    def cancel(self) -> Job:
        """End the job unless it has ended, and return it."""
        return self._client._run(lambda _: self._handle.cancel())  # noqa: SLF001

    def events(self, after_sequence: int = 0) -> Iterator[JobEvent]:
        """Yield what happens to the job, to its end; see `AsyncJobHandle.events`."""
        return self._client._iterate(  # noqa: SLF001
            lambda _: self._handle.events(after_sequence)
        )

    def result(self, on_event: EventCallback | None = None) -> GenerationResult:
        """Wait for the job's end and fetch its results; see `AsyncJobHandle.result`.

        Args:
            on_event: Called with each event, in the client's thread.
        """
        return self._client._run(lambda _: self._handle.result(on_event))  # noqa: SLF001


class Client:
    """Talks to a DisagFusion service. Safe to use from several threads.

        with Client("localhost:8000") as client:
            client.generate("a handwritten seven in red", seed=7).save("seven.png")

    The arguments are those of `AsyncClient`.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        api_key: str | None = None,
        tls: TlsSettings | None = None,
        timeout: float = 30.0,
        transport: ClientTransport | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._make = lambda: AsyncClient(
            address, api_key=api_key, tls=tls, timeout=timeout, transport=transport, retry=retry
        )
        self._closed = False
        self._lost: list[_Connection] = []
        self._open()

    def _open(self) -> _Connection:
        self._connection = _Connection(self._make)
        # Runs at the latest when the interpreter ends, while threads can still be joined.
        self._finalizer = weakref.finalize(self, self._connection.close)
        return self._connection

    def _current(self) -> _Connection:
        if self._closed:
            raise FailedPreconditionError("the client has been closed")
        if self._connection.pid != os.getpid():
            # A fork takes neither the thread nor the connection along.
            self._finalizer.detach()
            # Kept: collecting it would touch what only the other process has.
            self._lost.append(self._connection)
            return self._open()
        return self._connection

    def _run(self, start: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        connection = self._current()
        return connection.loop.run(start(connection.client))

    def _iterate(self, start: Callable[[AsyncClient], AsyncGenerator[T, None]]) -> Iterator[T]:
        connection = self._current()
        iterator = start(connection.client)
        try:
            while (item := connection.loop.run(_next(iterator))) is not None:
                yield item[0]
        finally:
            if not connection.loop.closed:
                connection.loop.run(_close(iterator))

    def generate(
        self,
        prompt: str,
        *,
        on_event: EventCallback | None = None,
        **options: Unpack[GenerationOptions],
    ) -> GenerationResult:
        """Submit a job, wait for it and fetch the results; see `AsyncClient.generate`.

        A job whose waiting is interrupted (Ctrl-C) is cancelled.

        Args:
            prompt: What to make.
            on_event: Called with each event of the job, in the client's thread.
            **options: See `GenerationOptions`.
        """
        return self._run(lambda client: client.generate(prompt, on_event=on_event, **options))

    def submit(self, prompt: str, **options: Unpack[GenerationOptions]) -> JobHandle:
        """Submit a job and return at once; see `AsyncClient.submit`.

        Args:
            prompt: What to make.
            **options: See `GenerationOptions`.
        """
        return JobHandle(self, self._run(lambda client: client.submit(prompt, **options)))

    def job(self, job_id: str) -> JobHandle:
        """Return a job that was submitted before; see `AsyncClient.job`."""
        return JobHandle(self, self._run(lambda client: client.job(job_id)))

    def jobs(self, *, states: Sequence[JobState] = (), page_size: int = 50) -> Iterator[Job]:
        """Yield the caller's jobs, newest first; see `AsyncClient.jobs`."""
        return self._iterate(lambda client: client.jobs(states=states, page_size=page_size))

    def pipeline(self, name: str = "") -> Pipeline:
        """Describe a pipeline; see `AsyncClient.pipeline`."""
        return self._run(lambda client: client.pipeline(name))

    def close(self) -> None:
        """Let go of connection and thread. Jobs run on. May be called more than once."""
        self._closed = True
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
