"""How gateways share the jobs of an SQL database; see `peers` for the rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from disagfusion.errors import FailedPreconditionError
from disagfusion.jobs.leases import RESIGNED
from disagfusion.jobs.peers import Adopted, LeaseLostError, News, Peers
from disagfusion.jobs.sql_rows import complete_jobs, event_of
from disagfusion.jobs.sql_schema import events, gateways, jobs, one_at_a_time
from disagfusion.jobs.sql_thread import SqlThread

_UNFINISHED = jobs.c.ended_at.is_(None)
# Whoever removes the row has to wait for this change, and then finds that it has beaten; whoever
# waits for a removal finds no row. What commits lives, however long a beat of its own may wait.
_GUARD = (
    update(gateways)
    .where(gateways.c.name == bindparam("me"), gateways.c.beats >= 0)
    .values(beats=gateways.c.beats + 1)
)
_NOW = select(func.extract("epoch", func.clock_timestamp()))
_BEATS = select(gateways.c.name, gateways.c.beats).order_by(gateways.c.id)
_CANCELLED = select(jobs.c.job_id).where(
    jobs.c.owner == bindparam("me"), jobs.c.cancel_requested, _UNFINISHED
)
_LAST_EVENTS = (
    select(jobs.c.job_id, events)
    .join(events, (events.c.job == jobs.c.id) & (events.c.sequence == jobs.c.sequence))
    .where(jobs.c.job_id.in_(bindparam("watched", expanding=True)))
)


class SqlPeers(Peers):
    """See `Peers`.

    Args:
        thread: Runs on the database.
        name: This gateway's, never used before.
        pipeline: What it serves; all gateways of a store serve the same.
    """

    def __init__(self, thread: SqlThread, name: str, pipeline: str) -> None:
        self._thread = thread
        self._pipeline = pipeline
        self.name = name

    async def join(self) -> None:
        """Enter this gateway; from now on every change needs its row.

        Raises:
            FailedPreconditionError: The store is another pipeline's.
        """
        run = partial(_join, name=self.name, pipeline=self._pipeline)
        await self._thread.write(run, patient=False)
        self._thread.guard = partial(_guard, name=self.name)

    async def now(self) -> float:
        """Return the server's Unix seconds."""
        return await self._thread.read(_now)

    async def beat(self) -> Mapping[str, int]:
        """Say that this gateway lives; return how often each gateway has, the eldest first."""
        # The transaction that writes does it.
        return await self._thread.write(_beats, patient=False)

    async def adopt(self, dead: Mapping[str, int]) -> Adopted:
        """Take over what belongs to nobody."""
        run = partial(_adopt, name=self.name, dead=dict(dead))
        return await self._thread.write(run, patient=False)

    async def owned(self) -> frozenset[str]:
        """Return the ids of the unfinished jobs of this gateway."""
        return await self._thread.read(partial(_owned, name=self.name))

    async def news(self, watched: Collection[str]) -> News:
        """Return what has happened elsewhere."""
        run = partial(_news, name=self.name, watched=list(watched))
        return await self._thread.read(run)

    async def cancel(self, job_id: str) -> None:
        """Have the owner of a job end it."""
        await self._thread.write(partial(_cancel, job_id=job_id), patient=False)

    async def count_elsewhere(self) -> Mapping[str, int]:
        """Return how many unfinished jobs each tenant has at other gateways."""
        return await self._thread.read(partial(_count_elsewhere, name=self.name))

    async def resign(self) -> None:
        """Give all jobs up, for others to adopt at once."""
        await self._thread.write(partial(_resign, name=self.name), patient=False)


def _join(connection: Connection, name: str, pipeline: str) -> None:
    one_at_a_time(connection)
    others = (
        select(gateways.c.pipeline).where(gateways.c.pipeline != pipeline),
        select(jobs.c.pipeline).where(_UNFINISHED, jobs.c.pipeline != pipeline),
    )
    for query in others:
        other = connection.execute(query.limit(1)).scalar()
        if other is not None:
            raise FailedPreconditionError(
                f"the database belongs to the pipeline {other!r}: {pipeline!r} needs another, or"
                " another schema in it",
                reason="OTHER_PIPELINE",
            )
    connection.execute(insert(gateways), {"name": name, "pipeline": pipeline, "beats": 0})


def _now(connection: Connection) -> float:
    return float(connection.execute(_NOW).scalar_one())


def _guard(connection: Connection, name: str) -> None:
    if connection.execute(_GUARD, {"me": name}).rowcount == 0:
        raise LeaseLostError(
            "the other gateways took this one for dead: its jobs are theirs now", retry_after=1.0
        )


def _beats(connection: Connection) -> dict[str, int]:
    return {row.name: row.beats for row in connection.execute(_BEATS)}


def _resign(connection: Connection, name: str) -> None:
    connection.execute(update(gateways).where(gateways.c.name == name).values(beats=RESIGNED))


def _adopt(connection: Connection, name: str, dead: dict[str, int]) -> Adopted:
    owners = {other for other, beats in dead.items() if _expelled(connection, other, beats)}
    alive = select(gateways.c.name)
    orphans = (
        select(jobs)
        .where(_UNFINISHED, jobs.c.owner.is_(None) | jobs.c.owner.not_in(alive))
        .order_by(jobs.c.id)
        .with_for_update()
    )
    rows = connection.execute(orphans).all()
    if rows:
        connection.execute(
            update(jobs).where(jobs.c.id == bindparam("row")).values(owner=name),
            [{"row": row.id} for row in rows],
        )
    owners |= {row.owner for row in rows if row.owner is not None}
    return Adopted(tuple(complete_jobs(connection, rows)), frozenset(owners))


def _expelled(connection: Connection, name: str, beats: int) -> bool:
    """Remove a gateway that has not beaten since; tell whether it was there."""
    silent = (gateways.c.name == name) & (gateways.c.beats == beats)
    return connection.execute(delete(gateways).where(silent)).rowcount > 0


def _owned(connection: Connection, name: str) -> frozenset[str]:
    query = select(jobs.c.job_id).where(jobs.c.owner == name, _UNFINISHED)
    return frozenset(connection.execute(query).scalars())


def _news(connection: Connection, name: str, watched: list[str]) -> News:
    cancelled = tuple(connection.execute(_CANCELLED, {"me": name}).scalars())
    found = connection.execute(_LAST_EVENTS, {"watched": watched}).all() if watched else []
    return News(cancelled, tuple(event_of(row.job_id, row) for row in found))


def _cancel(connection: Connection, job_id: str) -> None:
    connection.execute(
        update(jobs).where(jobs.c.job_id == job_id, _UNFINISHED).values(cancel_requested=True)
    )


def _count_elsewhere(connection: Connection, name: str) -> dict[str, int]:
    query = (
        select(jobs.c.tenant, func.count())
        .where(_UNFINISHED, jobs.c.owner != name)
        .group_by(jobs.c.tenant)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}
