"""The tables, and how an older store is brought up to date."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    inspect,
    select,
    text,
)

from disagfusion.errors import FailedPreconditionError

metadata = MetaData()

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


def _owner() -> Column[int]:
    return Column("job", _Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


jobs = Table(
    "jobs",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("job_id", String(64), nullable=False, unique=True),
    Column("tenant", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("generation", LargeBinary, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("client_request_id", String(128)),
    Column("priority", Integer, nullable=False),
    Column("submitted_at", Double, nullable=False),
    Column("deadline", Double),
    Column("cost_key", Text, nullable=False),
    Column("num_inference_steps", Integer, nullable=False),
    Column("traceparent", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("stage_status", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("error_reason", Text),
    Column("error_message", Text),
    Column("input_bytes", BigInteger, nullable=False),
    Column("result_bytes", BigInteger, nullable=False),
    Column("event_count", Integer, nullable=False),
    # NULL where one gateway has the store to itself.
    Column("owner", String(128)),
    Column("cancel_requested", Boolean),
    UniqueConstraint("tenant", "client_request_id"),
    Index("jobs_of_tenant", "tenant", "id"),
    Index(
        "jobs_unfinished",
        "id",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index("jobs_by_end", "ended_at"),
    Index(
        "jobs_owned",
        "owner",
        postgresql_where=text("ended_at IS NULL"),
    ).ddl_if(dialect="postgresql"),
    sqlite_autoincrement=True,
)

# What retention asks for every minute must not look at every job that is kept.
_RETENTION = (
    Index("jobs_by_size", jobs.c.ended_at, jobs.c.input_bytes, jobs.c.event_count),
    Index(
        "jobs_with_results",
        jobs.c.ended_at,
        jobs.c.result_bytes,
        sqlite_where=text("result_bytes > 0"),
        postgresql_where=text("result_bytes > 0"),
    ),
    Index(
        "jobs_with_events",
        jobs.c.ended_at,
        sqlite_where=text("event_count > 1"),
        postgresql_where=text("event_count > 1"),
    ),
)

images = Table(
    "images",
    metadata,
    _owner(),
    Column("position", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

events = Table(
    "events",
    metadata,
    _owner(),
    Column("sequence", BigInteger, primary_key=True),
    Column("time", Double, nullable=False),
    Column("state", Integer, nullable=False),
    Column("stage_status", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("message", Text, nullable=False),
)

stage_records = Table(
    "stage_records",
    metadata,
    _owner(),
    Column("stage", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("worker", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("device", Text, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("queue_seconds", Double, nullable=False),
    Column("compute_seconds", Double, nullable=False),
    Column("receive_seconds", Double, nullable=False),
    Column("send_seconds", Double, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("transport", Text, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
)

outputs = Table(
    "outputs",
    metadata,
    _owner(),
    Column("index", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("num_frames", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("stored", Boolean, nullable=False),
)

gateways = Table(
    "gateways",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("pipeline", Text, nullable=False),
    Column("beats", BigInteger, nullable=False),
)

pipelines = Table(
    "pipelines",
    metadata,
    Column("name", Text, primary_key=True),
    Column("specification", Text, nullable=False),
)

_version_metadata = MetaData()
schema_version = Table(
    "schema_version", _version_metadata, Column("version", Integer, nullable=False)
)


def _share(connection: Connection) -> None:
    """Let jobs have owners; only SQLite had stores before."""
    connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN owner VARCHAR(128)")
    connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN cancel_requested BOOLEAN")
    gateways.create(connection)


UPGRADES: tuple[Callable[[Connection], None], ...] = (_share,)
"""Step n brings a store from version n + 1 to version n + 2; a new one is made as the last is."""

_LATEST = len(UPGRADES) + 1
# Any number will do, as long as nobody else locks by it in the same database.
_LOCK = 0x64665F6A6F6273


def one_at_a_time(connection: Connection) -> None:
    """Wait until no other gateway does what begins with this, until the end of its transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def upgrade(connection: Connection) -> None:
    """Bring the schema up to date, within the transaction that is under way.

    Raises:
        FailedPreconditionError: The store was written by a newer version of the software.
    """
    # Of several that start at once the first does it, and the others find it done.
    one_at_a_time(connection)
    if not inspect(connection).has_table(schema_version.name):
        metadata.create_all(connection, checkfirst=False)
        _version_metadata.create_all(connection)
        connection.execute(schema_version.insert().values(version=_LATEST))
        return
    version = connection.execute(select(schema_version.c.version)).scalar_one()
    if version > _LATEST:
        raise FailedPreconditionError(
            f"the job store has schema version {version}, this software knows up to"
            f" {_LATEST}: it was written by a newer version",
            reason="NEWER_SCHEMA",
        )
    if version < _LATEST:
        for step in UPGRADES[version - 1 :]:
            step(connection)
        connection.execute(schema_version.update().values(version=_LATEST))
    # Stores of this version had none at first; whoever does not know them is not hindered.
    pipelines.create(connection, checkfirst=True)
    for index in _RETENTION:
        index.create(connection, checkfirst=True)
