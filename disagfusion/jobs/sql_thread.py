"""One thread that owns the database connection, and commits changes in groups.

Changes that arrive while a commit is under way share the next transaction, each within a
savepoint of its own, so that the cost of reaching the disk is shared and one that is refused
does not touch its neighbours.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, RootTransaction, make_url
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.pool import StaticPool

from disagfusion import failpoints
from disagfusion.errors import (
    DataLossError,
    DisagfusionError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion.telemetry.logging import get_logger

T = TypeVar("T")

RETRY_SECONDS = 0.25
_BUSY_TIMEOUT_MS = 5000
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
# The working set is the few jobs under way; SQLite's own 2 MiB fill up for no gain.
_CACHE_KIB = 512

_log = get_logger(__name__)


@dataclass(eq=False)
class _Operation(Generic[T]):
    """A piece of work for the thread.

    Attributes:
        run: Does it; may be called again after a transaction that failed.
        write: Whether it changes anything.
        patient: Whether it waits while nothing can be written, rather than fail.
    """

    run: Callable[[Connection], T]
    write: bool
    patient: bool
    future: Future[T] = field(default_factory=Future)


class SqlThread:
    """Runs operations on one connection in one thread.

    Args:
        url: SQLAlchemy URL.
        synchronous: SQLite's `PRAGMA synchronous`: "FULL" survives a loss of power, "NORMAL"
            may then lose the last commits but never damages the file.
    """

    def __init__(self, url: str, *, synchronous: str = "FULL") -> None:
        if synchronous not in ("OFF", "NORMAL", "FULL", "EXTRA"):
            raise ValueError(f"synchronous: {synchronous!r} is not a mode of SQLite")
        self._url = make_url(url)
        self._synchronous = synchronous
        self._queue: queue.SimpleQueue[_Operation[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def path(self) -> Path | None:
        """The database file, where it is one."""
        name = self._url.database
        if self._url.get_backend_name() != "sqlite" or name in (None, "", ":memory:"):
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

    async def write(self, run: Callable[[Connection], T], *, patient: bool) -> T:
        """Run a change and return once it is durable.

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
                engine = _create_engine(self._url, self._synchronous)
                stack.callback(engine.dispose)
                connection = stack.enter_context(engine.connect())
                with _transaction(connection, write=True):
                    prepare(connection)
            except DisagfusionError as error:
                ready.set_exception(error)
                return
            except Exception as error:  # noqa: BLE001 - delivered to whoever waits for it
                name = self._url.render_as_string()
                text = f"the job store {name} cannot be opened: {_cause(error)}"
                ready.set_exception(UnavailableError(text))
                return
            ready.set_result(None)
            self._loop(connection)

    def _loop(self, connection: Connection) -> None:
        backlog: list[_Operation[Any]] = []
        closing = False
        while not closing:
            operations, closing = self._take(RETRY_SECONDS if backlog else None)
            for operation in operations:
                if not operation.write:
                    _answer_read(connection, operation)
            backlog += [operation for operation in operations if operation.write]
            if backlog:
                backlog = _commit(connection, backlog)
        for operation in backlog:
            operation.future.set_exception(UnavailableError("the job store was closed"))

    def _take(self, timeout: float | None) -> tuple[list[_Operation[Any]], bool]:
        """Wait for the first operation, then take all that are there."""
        operations: list[_Operation[Any]] = []
        try:
            item = self._queue.get(timeout=timeout)
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
    except OperationalError as error:
        operation.future.set_exception(UnavailableError(f"the job store: {_cause(error)}"))
    except Exception as error:  # noqa: BLE001 - delivered to whoever waits for it
        operation.future.set_exception(error)
    else:
        operation.future.set_result(result)


def _commit(connection: Connection, operations: list[_Operation[Any]]) -> list[_Operation[Any]]:
    """Apply changes in one transaction and return those that have to wait."""
    try:
        with _transaction(connection, write=True):
            results = [_apply(connection, operation) for operation in operations]
            failpoints.reach("jobs.commit.before")
    except OperationalError as error:
        return _postpone(operations, error)
    except Exception as error:  # noqa: BLE001 - delivered to whoever waits for it
        _log.error("job_store_failed", error=_cause(error))
        for operation in operations:
            operation.future.set_exception(DataLossError(f"the job store: {_cause(error)}"))
        return []
    failpoints.reach("jobs.commit.after")
    for operation, result, refusal in results:
        if refusal is None:
            operation.future.set_result(result)
        else:
            operation.future.set_exception(refusal)
    return []


def _apply(
    connection: Connection, operation: _Operation[Any]
) -> tuple[_Operation[Any], Any, Exception | None]:
    try:
        with _savepoint(connection):
            return operation, operation.run(connection), None
    except IntegrityError as error:
        # Another gateway has just written the same: the repetition will find it.
        return operation, None, UnavailableError(f"the job store: {_cause(error)}")
    except DatabaseError:
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
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT change")
        raise
    connection.exec_driver_sql("RELEASE SAVEPOINT change")


def _postpone(operations: list[_Operation[Any]], error: OperationalError) -> list[_Operation[Any]]:
    """Fail what must not wait; the rest is tried again."""
    full = _disk_is_full(error)
    _log.warning("job_store_cannot_write", error=_cause(error), full=full, changes=len(operations))
    refusal: DisagfusionError
    if full:
        refusal = ResourceExhaustedError(
            "the disk of the job store is full", reason="DISK_FULL", retry_after=5.0
        )
    else:
        refusal = UnavailableError(f"the job store: {_cause(error)}", retry_after=1.0)
    for operation in operations:
        if not operation.patient:
            operation.future.set_exception(refusal)
    return [operation for operation in operations if operation.patient]


def _transaction(connection: Connection, *, write: bool) -> AbstractContextManager[RootTransaction]:
    connection.info["begin"] = "BEGIN IMMEDIATE" if write else "BEGIN"
    return connection.begin()


def _create_engine(url: URL, synchronous: str) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, poolclass=StaticPool)

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # sqlite3 would begin and commit where it thinks fit; SQLAlchemy does it here.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "foreign_keys=ON",
            f"journal_size_limit={_WAL_LIMIT_BYTES}",
            f"cache_size=-{_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.info.get("begin", "BEGIN"))

    return engine


def _disk_is_full(error: BaseException) -> bool:
    """Whether a full disk is the cause; a rollback that fails afterwards may hide it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, sqlite3.Error) and seen.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return True
        original = getattr(seen, "orig", None)
        if isinstance(original, sqlite3.Error) and _disk_is_full(original):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _cause(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error)
