"""One thread that owns the database connection, and commits changes in groups.

Changes that arrive while a commit is under way share the next transaction, each within a
savepoint of its own, so that the cost of reaching the disk is shared and one that is refused
does not touch its neighbours. A transaction takes no more changes once it has lasted for a while,
so that those who wait for it, for a lock of it or for a read need not wait for long.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import RootTransaction
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from disagfusion import failpoints
from disagfusion.errors import (
    DataLossError,
    DisagfusionError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion.jobs.peers import LeaseLostError
from disagfusion.jobs.sql_engine import (
    SQLITE,
    cause,
    disk_is_full,
    is_passing,
    make_engine,
    parse_url,
)
from disagfusion.telemetry.logging import get_logger

T = TypeVar("T")

RETRY_SECONDS = 0.25
GROUP_SECONDS = 0.5

_log = get_logger(__name__)


@dataclass(eq=False)
class _Operation(Generic[T]):
    """A piece of work for the thread.

    Attributes:
        run: Does it; may be called again after a transaction that failed.
        write: Whether it changes anything.
        patient: Whether it waits while nothing can be written, rather than fail.
    """

    run: Callable[..., T]
    write: bool
    patient: bool
    future: Future[T] = field(default_factory=Future)


class SqlThread:
    """Runs operations on one connection in one thread.

    Args:
        url: SQLAlchemy URL.
        synchronous: SQLite's `PRAGMA synchronous`: "FULL" survives a loss of power, "NORMAL"
            may then lose the last commits but never damages the file.

    Attributes:
        guard: Begins every transaction that writes; what it raises refuses all of its changes.
    """

    def __init__(self, url: str, *, synchronous: str = "FULL") -> None:
        if synchronous not in ("OFF", "NORMAL", "FULL", "EXTRA"):
            raise ValueError(f"synchronous: {synchronous!r} is not a mode of SQLite")
        self._url = parse_url(url)
        self._synchronous = synchronous
        self._queue: queue.SimpleQueue[_Operation[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.guard: Callable[[Connection], None] = _unguarded

    @property
    def path(self) -> Path | None:
        """The database file, where it is one."""
        name = self._url.database
        if self._url.get_backend_name() != SQLITE or name in (None, "", ":memory:"):
            return None
        return Path(str(name))

    async def open(self, prepare: Callable[[Connection], None]) -> None:
        """Start the thread, connect and prepare the database.

        Raises:
            UnavailableError: It cannot be opened.
            DisagfusionError: Whatever `prepare` raises.
        """
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._main, args=(prepare, ready), name="job-store", daemon=True
        )
        self._thread.start()
        await asyncio.wrap_future(ready)

    async def aclose(self) -> None:
        """Finish what was asked for before, then end the thread."""
        if self._thread is None or self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def read(self, run: Callable[[Connection], T]) -> T:
        """Run something that changes nothing."""
        return await self._submit(_Operation(run, write=False, patient=False))

    async def write(self, run: Callable[..., T], *, patient: bool) -> T:
        """Run a change and return once it is durable.

        Args:
            run: Is given the connection; where it is tried again, also `again=True`, since nobody
                knows then whether the commit before was done.
            patient: Whether it is tried again for as long as nothing can be written.

        Raises:
            ResourceExhaustedError: The disk is full and the change is not patient.
            UnavailableError: It cannot be written now and is not patient, or the store closes.
        """
        return await self._submit(_Operation(run, write=True, patient=patient))

    async def _submit(self, operation: _Operation[T]) -> T:
        if self._thread is None or self._closed:
            raise UnavailableError("the job store is closed")
        self._queue.put(operation)
        return await asyncio.wrap_future(operation.future)

    def _main(self, prepare: Callable[[Connection], None], ready: Future[None]) -> None:
        with ExitStack() as stack:
            try:
                engine = make_engine(self._url, self._synchronous)
                stack.callback(engine.dispose)
                connection = stack.enter_context(engine.connect())
                with _transaction(connection, write=True):
                    prepare(connection)
            except DisagfusionError as error:
                ready.set_exception(error)
                return
            except Exception as error:  # noqa: BLE001 - delivered to whoever waits for it
                name = self._url.render_as_string()
                text = f"the job store {name} cannot be opened: {cause(error)}"
                ready.set_exception(UnavailableError(text))
                return
            ready.set_result(None)
            self._loop(connection)

    def _loop(self, connection: Connection) -> None:
        backlog: list[_Operation[Any]] = []
        closing = postponed = False
        while not closing or (backlog and not postponed):
            if not closing:
                wait = RETRY_SECONDS if postponed else 0.0
                operations, closing = self._take(wait if backlog else None)
                for operation in operations:
                    if not operation.write:
                        _answer_read(connection, operation)
                backlog += [operation for operation in operations if operation.write]
            if backlog:
                backlog, postponed = _commit(connection, backlog, self.guard)
        for operation in backlog:
            operation.future.set_exception(UnavailableError("the job store was closed"))

    def _take(self, timeout: float | None) -> tuple[list[_Operation[Any]], bool]:
        """Wait for the first operation, then take all that are there."""
        operations: list[_Operation[Any]] = []
        try:
            item = self._queue.get(block=timeout != 0.0, timeout=timeout)
            while item is not None:
                if item.future.set_running_or_notify_cancel():
                    operations.append(item)
                item = self._queue.get_nowait()
        except queue.Empty:
            return operations, False
        return operations, True


def _answer_read(connection: Connection, operation: _Operation[Any]) -> None:
    try:
        with _transaction(connection, write=False):
            result = operation.run(connection)
    except DBAPIError as error:
        text = f"the job store: {cause(error)}"
        refusal = UnavailableError(text) if is_passing(error) else DataLossError(text)
        operation.future.set_exception(refusal)
    except Exception as error:  # noqa: BLE001 - delivered to whoever waits for it
        operation.future.set_exception(error)
    else:
        operation.future.set_result(result)


def _unguarded(_: Connection) -> None:
    """Let every change be made."""


def _commit(
    connection: Connection,
    operations: list[_Operation[Any]],
    guard: Callable[[Connection], None],
) -> tuple[list[_Operation[Any]], bool]:
    """Apply changes in one transaction, as many as it has time for.

    Returns:
        Those that are left, and whether they have to wait until something can be written.
    """
    until = time.monotonic() + GROUP_SECONDS
    results = []
    try:
        with _transaction(connection, write=True):
            guard(connection)
            for operation in operations:
                results.append(_apply(connection, operation))
                if time.monotonic() >= until:
                    break
            failpoints.reach("jobs.commit.before")
    except DBAPIError as error:
        if is_passing(error):
            return _postpone(operations, error), True
        return _give_up(operations, error), False
    except LeaseLostError as error:
        for operation in operations:
            operation.future.set_exception(error)
        return [], False
    except Exception as error:  # noqa: BLE001 - delivered to whoever waits for it
        return _give_up(operations, error), False
    failpoints.reach("jobs.commit.after")
    for operation, result, refusal in results:
        if refusal is None:
            operation.future.set_result(result)
        else:
            operation.future.set_exception(refusal)
    return operations[len(results) :], False


def _give_up(operations: list[_Operation[Any]], error: Exception) -> list[_Operation[Any]]:
    _log.error("job_store_failed", error=cause(error))
    for operation in operations:
        operation.future.set_exception(DataLossError(f"the job store: {cause(error)}"))
    return []


def _apply(
    connection: Connection, operation: _Operation[Any]
) -> tuple[_Operation[Any], Any, Exception | None]:
    try:
        try:
            with _savepoint(connection):
                return operation, operation.run(connection), None
        except IntegrityError:
            # Another gateway has just written the same: now it is to be found.
            with _savepoint(connection):
                return operation, operation.run(connection), None
    except IntegrityError as error:
        return operation, None, UnavailableError(f"the job store: {cause(error)}")
    except DataError as error:
        return operation, None, DataLossError(f"the job store cannot hold this: {cause(error)}")
    except DBAPIError:
        raise
    except Exception as error:  # noqa: BLE001 - delivered to whoever waits for it
        return operation, None, error


@contextmanager
def _savepoint(connection: Connection) -> Generator[None]:
    """Undo what is done inside when it fails; SQLAlchemy's own compiles its SQL every time."""
    connection.exec_driver_sql("SAVEPOINT change")
    try:
        yield
    except BaseException:
        # A connection that broke has taken its transaction with it.
        if not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT change")
        raise
    connection.exec_driver_sql("RELEASE SAVEPOINT change")


def _postpone(operations: list[_Operation[Any]], error: DBAPIError) -> list[_Operation[Any]]:
    """Fail what must not wait; the rest is tried again."""
    full = disk_is_full(error)
    _log.warning("job_store_cannot_write", error=cause(error), full=full, changes=len(operations))
    refusal: DisagfusionError
    if full:
        refusal = ResourceExhaustedError(
            "the disk of the job store is full", reason="DISK_FULL", retry_after=5.0
        )
    else:
        refusal = UnavailableError(f"the job store: {cause(error)}", retry_after=1.0)
    for operation in operations:
        if not operation.patient:
            operation.future.set_exception(refusal)
    patient = [operation for operation in operations if operation.patient]
    for operation in patient:
        # The connection may have broken after the commit.
        operation.run = partial(operation.run, again=True)
    return patient


def _transaction(connection: Connection, *, write: bool) -> AbstractContextManager[RootTransaction]:
    connection.info["begin"] = "BEGIN IMMEDIATE" if write else "BEGIN"
    return connection.begin()
