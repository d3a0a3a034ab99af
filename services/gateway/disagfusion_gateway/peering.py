"""Living with other gateways on one job store: the lease, dead gateways' jobs, and news."""

from __future__ import annotations

import asyncio
import contextlib
import math

from disagfusion.dispatch import events
from disagfusion.errors import (
    DisagfusionError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion.jobs.leases import RESIGNED, Leases
from disagfusion.jobs.peers import Adopted, LeaseLostError, Peers
from disagfusion.jobs.store import JobStore
from disagfusion.telemetry.logging import get_logger
from disagfusion_gateway.core import Core
from disagfusion_gateway.sessions import Sessions
from disagfusion_gateway.watchers import Watchers

_LOOKS = 5
_NEWS_SECONDS = 0.25
_BEATS_PER_SWEEP = 10
# How much later than this one another gateway may find that its connection is dead, and make a new
# one: as long as keepalives and a try to connect take, by default.
_REUNION_SECONDS = 16.0

_log = get_logger(__name__)


class Peering:
    """Keeps a gateway's lease, takes over from gateways that died, and hears of their jobs.

    Args:
        name: This gateway's, as the store knows it.
        peers: The other gateways.
        store: Their jobs.
        core: Takes jobs over.
        sessions: The workers that are to hand them over.
        watchers: Those who watch jobs of other gateways, too.
        lease: Seconds without a sign of life after which a gateway counts as dead.
        count_tenants: Whether admission asks how many jobs a tenant has elsewhere.
    """

    def __init__(
        self,
        name: str,
        peers: Peers,
        store: JobStore,
        core: Core,
        sessions: Sessions,
        watchers: Watchers,
        *,
        lease: float,
        count_tenants: bool,
    ) -> None:
        self._name = name
        self._peers = peers
        self._store = store
        self._core = core
        self._sessions = sessions
        self._watchers = watchers
        self._interval = lease / _LOOKS
        self._leases = Leases(_LOOKS)
        self._count_tenants = count_tenants
        self._elsewhere: dict[str, int] = {}
        self._unknown: frozenset[str] = frozenset()
        self._eldest = False

    @property
    def eldest(self) -> bool:
        """Whether this gateway does what one of them is to do for all."""
        return self._eldest

    def unfinished_elsewhere(self, tenant: str) -> int:
        """Return how many unfinished jobs a tenant had at other gateways a beat ago."""
        return self._elsewhere.get(tenant, 0)

    async def cancel(self, job_id: str) -> None:
        """Have the gateway end a job whose it is."""
        await self._peers.cancel(job_id)

    async def start(self) -> None:
        """Take up what other gateways have left; the workers are not connected yet."""
        await self._beat()

    async def run(self) -> None:
        """Go on until cancelled, or until this gateway has lost its lease.

        Raises:
            LeaseLostError: It must end.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_lease())
            group.create_task(self._follow())

    async def resign(self) -> None:
        """Let others take the jobs over at once."""
        with contextlib.suppress(DisagfusionError):
            await self._peers.resign()

    async def _keep_lease(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(self._interval)
            beats += 1
            try:
                await self._beat()
                if beats % _BEATS_PER_SWEEP == 0:
                    await self._sweep()
            except LeaseLostError:
                raise
            except (ResourceExhaustedError, UnavailableError) as error:
                _log.warning("no beat", problem=error.message)

    async def _beat(self) -> None:
        try:
            beats = await self._peers.beat()
        except DisagfusionError:
            self._leases.forgive(math.ceil(_REUNION_SECONDS / self._interval))
            raise
        living = [name for name, count in beats.items() if count != RESIGNED]
        self._eldest = living[:1] == [self._name]
        self._take_over(await self._peers.adopt(self._leases.observe(beats)))
        if self._count_tenants:
            self._elsewhere = dict(await self._peers.count_elsewhere())

    def _take_over(self, adopted: Adopted) -> None:
        if not adopted.jobs and not adopted.owners:
            return
        _log.warning("took over", gateways=sorted(adopted.owners), jobs=len(adopted.jobs))
        # Before the workers tell what they have of them.
        self._core.post(events.TakeOverBegun(self._sessions.names))
        for job in adopted.jobs:
            self._core.recover(job, contested=True)
        self._sessions.take_over(adopted.owners)

    async def _sweep(self) -> None:
        """Take up own jobs that this process does not know of.

        A commit that succeeded may have failed as far as we know, since its connection broke. Such
        a job is looked for twice: once it may be about to be told.
        """
        owned = await self._peers.owned()
        unknown = frozenset(job_id for job_id in owned if not self._core.knows(job_id))
        for job_id in sorted(unknown & self._unknown):
            with contextlib.suppress(NotFoundError):
                job = await self._store.load(job_id)
                if not job.state.ended and not self._core.knows(job_id):
                    _log.warning("job found", job_id=job_id)
                    self._core.recover(job, contested=True)
        self._unknown = unknown

    async def _follow(self) -> None:
        """Ask again and again what has happened elsewhere.

        Asking costs two look-ups in an index, needs no connection of its own and passes through
        every pooler; notifications would take one each, and make commits wait for each other.
        """
        while True:
            await asyncio.sleep(_NEWS_SECONDS)
            watched = [job_id for job_id in self._watchers.jobs if not self._core.knows(job_id)]
            try:
                news = await self._peers.news(watched)
            except LeaseLostError:
                raise
            except UnavailableError:
                continue
            except DisagfusionError as error:
                # What one asks for must not end all: the next question may be another.
                _log.error("no news", problem=error.message)
                continue
            for job_id in news.cancelled:
                self._core.post(events.CancelRequested(job_id, "cancelled by the client"))
            for event in news.events:
                if not self._core.knows(event.job_id):
                    self._watchers.publish(event)
