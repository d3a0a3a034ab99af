"""The database behind the job store: how it is reached, and what its errors mean."""

from __future__ import annotations

import sqlite3

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool, StaticPool

from disagfusion.errors import InvalidArgumentError

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
_EXPECTED = "such as sqlite:////path/jobs.db or postgresql+psycopg://user:password@host/database"

_BUSY_TIMEOUT_MS = 5000
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
# The working set is the few jobs under way; SQLite's own 2 MiB fill up for no gain.
_CACHE_KIB = 512

# A server that has gone silent is noticed within seconds; the URL's own parameters win.
_CONNECT = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "disagfusion",
    # Behind one address a standby may answer, or a server that has become one.
    "target_session_attrs": "read-write",
}
# A gateway that was stopped within a transaction must not keep its locks from the others, and one
# that meets such locks must not wait for longer than it has until its own lease is up.
_SESSION = {
    "idle_in_transaction_session_timeout": "3s",
    "lock_timeout": "2s",
    "statement_timeout": "60s",
}
_DISK_FULL = "53100"
_READ_ONLY = "25006"


def parse_url(text: str) -> URL:
    """Return a job store's URL; `postgresql://` means the driver that is installed with us.

    Raises:
        InvalidArgumentError: It is not a URL, or of a database that is not supported.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise InvalidArgumentError(
            "database", "is not a database's URL", expected=_EXPECTED
        ) from error
    if url.drivername == POSTGRESQL:
        url = url.set(drivername=f"{POSTGRESQL}+psycopg")
    if url.drivername not in (SQLITE, f"{SQLITE}+pysqlite", f"{POSTGRESQL}+psycopg"):
        raise InvalidArgumentError("database", f"is for {url.drivername}", expected=_EXPECTED)
    return url


def is_shared(text: str) -> bool:
    """Whether several gateways may work on this database at a time.

    Raises:
        InvalidArgumentError: As for `parse_url`.
    """
    return parse_url(text).get_backend_name() == POSTGRESQL


def make_engine(url: URL, synchronous: str) -> Engine:
    """Return an engine for one connection that lasts."""
    if url.get_backend_name() == POSTGRESQL:
        return _postgresql(url)
    return _sqlite(url, synchronous)


def _postgresql(url: URL) -> Engine:
    parameters = {name: value for name, value in _CONNECT.items() if name not in url.query}
    engine = create_engine(
        url, poolclass=NullPool, isolation_level="READ COMMITTED", connect_args=parameters
    )

    # Not as start-up options: those do not pass through every pooler.
    @event.listens_for(engine, "connect")
    def _configure(connection: object, _record: object) -> None:
        with connection.cursor() as cursor:  # type: ignore[attr-defined]
            for name, value in _SESSION.items():
                cursor.execute(f"SET {name} = '{value}'")
        connection.commit()  # type: ignore[attr-defined]

    @event.listens_for(engine, "handle_error")
    def _judge(context: ExceptionContext) -> None:
        # It has handed over to another server: only a new connection leads there.
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            context.is_disconnect = True

    return engine


def _sqlite(url: URL, synchronous: str) -> Engine:
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


def is_passing(error: DBAPIError) -> bool:
    """Whether the same may succeed later: the connection, a lock or the disk is at fault."""
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def disk_is_full(error: BaseException) -> bool:
    """Whether a full disk is the cause; a rollback that fails afterwards may hide it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, sqlite3.Error) and seen.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return True
        if getattr(seen, "sqlstate", None) == _DISK_FULL:
            return True
        original = getattr(seen, "orig", None)
        if isinstance(original, Exception) and disk_is_full(original):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def cause(error: BaseException) -> str:
    """Return what a database said, in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
