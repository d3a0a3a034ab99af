"""The job store in an SQL database: SQLite, or PostgreSQL for several gateways."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import shutil
import struct
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from disagfusion.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError
from disagfusion.jobs import sql_queries, sql_retention
from disagfusion.jobs.model import (
    Completion,
    InputImage,
    Job,
    JobEvent,
    JobState,
    NewJob,
    Transition,
)
from disagfusion.jobs.peers import Peers
from disagfusion.jobs.sql_peers import SqlPeers
from disagfusion.jobs.sql_schema import upgrade
from disagfusion.jobs.sql_thread import SqlThread
from disagfusion.jobs.store import Expired, JobPage, JobStore, RetentionPolicy, Submission

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_PAGE = 1000
_TOKEN = struct.Struct(">Q8s")


class SqlJobStore(JobStore):
    """Jobs in an SQL database, through one thread that commits in groups.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////var/lib/disagfusion/jobs.db`, or `sqlite://` for
            one in memory; `postgresql+psycopg://user:password@host/database`.
        owner: Name of the gateway that shares the store with others, never used before; empty
            where one gateway has the store to itself.
        pipeline: What that gateway serves.
        synchronous: SQLite's `PRAGMA synchronous`; "FULL" survives a loss of power.
        max_input_bytes: Bound on a job's request and images together.
        min_free_bytes: New jobs are refused when less than this is free on the database's disk
            and within its file, so that there is room to finish those that were accepted.
        free_bytes: Says how much is free at a path.
    """

    def __init__(
        self,
        url: str,
        *,
        owner: str = "",
        pipeline: str = "",
        synchronous: str = "FULL",
        max_input_bytes: int = 64 * 1024 * 1024,
        min_free_bytes: int = 64 * 1024 * 1024,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        self._thread = SqlThread(url, synchronous=synchronous)
        self._owner = owner or None
        self._peers = SqlPeers(self._thread, owner, pipeline) if owner else None
        self._max_input_bytes = max_input_bytes
        self._min_free_bytes = min_free_bytes
        self._free_bytes = free_bytes or _free_bytes

    async def open(self) -> None:
        """Open the database, creating it where there is none, and bring its schema up to date."""
        if self._thread.path is not None:
            directory = self._thread.path.parent
            try:
                await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
            except OSError as error:
                raise UnavailableError(
                    f"the job store's directory {directory} cannot be made: {error.strerror}"
                ) from error
        await self._thread.open(upgrade)
        if self._peers is not None:
            try:
                await self._peers.join()
            except BaseException:
                await self._thread.aclose()
                raise

    @property
    def peers(self) -> Peers | None:
        """What is shared with other gateways; None where nothing is."""
        return self._peers

    async def aclose(self) -> None:
        """Finish what is under way and close."""
        await self._thread.aclose()

    async def submit(self, job: NewJob) -> Submission:
        """Store a job QUEUED in attempt 1, with its first event."""
        if not _JOB_ID.fullmatch(job.job_id):
            raise InvalidArgumentError("job_id", f"{job.job_id!r} is malformed")
        size = len(job.generation) + sum(len(image.content) for image in job.images)
        if size > self._max_input_bytes:
            raise InvalidArgumentError(
                "images",
                f"request and images have {size} bytes",
                expected=f"at most {self._max_input_bytes}",
            )
        if not await self._has_room(size):
            known = await self.repeated(job)
            if known is not None:
                return Submission(known, created=False)
            raise ResourceExhaustedError(
                "the disk of the job store is full", reason="DISK_FULL", retry_after=5.0
            )
        run = partial(sql_queries.submit, job=job, owner=self._owner)
        return await self._thread.write(run, patient=False)

    async def repeated(self, job: NewJob) -> Job | None:
        """Return the job that this one repeats."""
        return await self._thread.read(partial(sql_queries.repeated, job=job))

    async def _has_room(self, size: int) -> bool:
        """Tell whether a job of so many bytes fits, above the floor that is kept free."""
        path = self._thread.path
        if path is None:
            return True
        room = await asyncio.to_thread(self._free_bytes, path.parent) - self._min_free_bytes
        # The file never shrinks: what has gone out of it is room for what comes.
        return room >= size or room + await self._thread.read(_unused_bytes) >= size

    async def transition(self, transition: Transition) -> JobEvent:
        """Apply a change; waits while the disk is full."""
        run = partial(sql_queries.transition, change=transition, owner=self._owner)
        return await self._thread.write(run, patient=True)

    async def complete(self, completion: Completion) -> JobEvent:
        """Make a job SUCCEEDED; waits while the disk is full."""
        run = partial(sql_queries.complete, completion=completion, owner=self._owner)
        return await self._thread.write(run, patient=True)

    async def get(self, job_id: str, *, tenant: str) -> Job:
        """Return a tenant's job."""
        return await self._thread.read(partial(sql_queries.load, job_id=job_id, tenant=tenant))

    async def load(self, job_id: str) -> Job:
        """Return a job whoever's it is."""
        return await self._thread.read(partial(sql_queries.load, job_id=job_id))

    async def images(self, job_id: str) -> tuple[InputImage, ...]:
        """Return a job's input images."""
        return await self._thread.read(partial(sql_queries.load_images, job_id=job_id))

    async def events(
        self, job_id: str, *, tenant: str, after_sequence: int = 0, limit: int = 1000
    ) -> Sequence[JobEvent]:
        """Return the events of a tenant's job after a sequence number, in order."""
        run = partial(
            sql_queries.load_events,
            job_id=job_id,
            tenant=tenant,
            after_sequence=after_sequence,
            limit=limit,
        )
        return await self._thread.read(run)

    async def list_jobs(
        self,
        *,
        tenant: str,
        page_size: int = 50,
        page_token: str = "",
        states: Collection[JobState] = (),
    ) -> JobPage:
        """List a tenant's jobs, newest first."""
        if not 1 <= page_size <= _MAX_PAGE:
            raise InvalidArgumentError(
                "page_size", f"{page_size} is out of range", expected=f"1 to {_MAX_PAGE}"
            )
        listing = _listing(tenant, states)
        run = partial(
            sql_queries.list_jobs,
            tenant=tenant,
            limit=page_size + 1,
            before=_decode_token(page_token, listing) if page_token else None,
            states=states,
        )
        found = await self._thread.read(run)
        page = found[:page_size]
        more = len(found) > page_size
        token = _encode_token(page[-1][0], listing) if more else ""
        return JobPage(tuple(job for _, job in page), token)

    async def unfinished(self) -> Sequence[Job]:
        """Return all jobs that have not ended, in the order of submission."""
        return await self._thread.read(sql_queries.unfinished)

    async def expired(self, policy: RetentionPolicy, now: float, limit: int) -> Expired:
        """Return what goes by a policy, the oldest first, at most so many jobs of each kind."""
        run = partial(sql_retention.expired, policy=policy, now=now, limit=limit)
        return await self._thread.read(run)

    async def result_bytes(self) -> int:
        """Return the bytes of all results that should be stored."""
        return await self._thread.read(sql_retention.result_bytes)

    async def result_keys(
        self, job_ids: Collection[str] | None = None
    ) -> frozenset[tuple[str, int, int]]:
        """Return (job id, attempt, index) of every output whose bytes should be stored."""
        ids = None if job_ids is None else tuple(job_ids)
        return await self._thread.read(partial(sql_retention.result_keys, job_ids=ids))

    async def forget_results(self, job_ids: Collection[str]) -> None:
        """Note that the bytes of these jobs' outputs are removed."""
        run = partial(sql_retention.forget_results, job_ids=tuple(job_ids))
        await self._thread.write(run, patient=False)

    async def delete_events(self, job_ids: Collection[str]) -> None:
        """Remove all events but the last of these jobs."""
        run = partial(sql_retention.delete_events, job_ids=tuple(job_ids))
        await self._thread.write(run, patient=False)

    async def delete_jobs(self, job_ids: Collection[str]) -> None:
        """Remove these jobs and all that belongs to them."""
        run = partial(sql_retention.delete_jobs, job_ids=tuple(job_ids))
        await self._thread.write(run, patient=False)

    async def put_specification(self, pipeline: str, specification: str) -> None:
        """Keep what a pipeline accepts."""
        run = partial(sql_queries.put_specification, pipeline=pipeline, specification=specification)
        await self._thread.write(run, patient=True)

    async def specification(self, pipeline: str) -> str:
        """Return what was kept last of a pipeline."""
        return await self._thread.read(partial(sql_queries.specification, pipeline=pipeline))


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def _unused_bytes(connection: Connection) -> int:
    pages = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())


def _listing(tenant: str, states: Collection[JobState]) -> bytes:
    """Return what ties a page token to its listing."""
    text = "\n".join([tenant, *(str(int(state)) for state in sorted(states))])
    return hashlib.sha256(text.encode()).digest()[:8]


def _encode_token(position: int, listing: bytes) -> str:
    return base64.urlsafe_b64encode(_TOKEN.pack(position, listing)).decode()


def _decode_token(token: str, listing: bytes) -> int:
    try:
        position, of = _TOKEN.unpack(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, struct.error, ValueError):
        of = b""
    if of != listing:
        raise InvalidArgumentError("page_token", "is not one that this listing has returned")
    return int(position)
