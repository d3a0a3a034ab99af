"""Leadership by a Lease: of several operators only one acts.

The holder renews the Lease; who finds that it was not renewed for the Lease's duration, by the own
clock since the last change was seen, takes it over. A holder that could not renew in time stops
acting before anybody may take over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from disagfusion.errors import AbortedError, AlreadyExistsError, DisagfusionError, NotFoundError
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.k8s.kinds import LEASE
from disagfusion_operator.k8s.port import Cluster, Object
from disagfusion_operator.k8s.states import text_of

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """In seconds.

    Attributes:
        duration: Without a sign of the holder, after which another may take over.
        renew: The holder gives up when it could not renew for so long.
        retry: Between two tries.
    """

    duration: float = 15.0
    renew: float = 10.0
    retry: float = 2.0


class Election:
    """Stands for election, and keeps the office.

    Args:
        cluster: Where the Lease is.
        namespace: Of the Lease.
        name: Of the Lease.
        identity: Of this process; no other has it, nor a later one of the same pod.
        times: How patient everybody is.
        clock: Seconds that only grow.
        today: The time of day, for people who look at the Lease.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes,
        clock: Callable[[], float],
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._place = (namespace, name)
        self._identity = identity
        self._times = times
        self._clock = clock
        self._today = today
        self._seen: tuple[str, float] = ("", clock())
        self._told = ""
        # As it was written last; nobody else is expected to write it meanwhile.
        self._mine: Object | None = None
        self.renewed: float | None = None
        """When the Lease was this process's last; None: it is not."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that acts."""
        return self._left() > 0.0

    def _left(self) -> float:
        """Return for how many seconds this process may still act."""
        if self.renewed is None:
            return 0.0
        return self.renewed + self._times.renew - self._clock()

    async def win(self) -> None:
        """Wait until elected."""
        while not await self.try_once():
            jitter = random.uniform(1.0, 1.2)  # noqa: S311 - no secret
            await asyncio.sleep(self._times.retry * jitter)
        _log.info("leads", identity=self._identity)

    async def keep(self) -> None:
        """Renew until the office is lost."""
        while (left := self._left()) > 0.0:
            await asyncio.sleep(min(self._times.retry, left))
            if self.leads:
                await self.try_once()
        _log.error("leadership lost", identity=self._identity)
        self.renewed = None

    async def release(self) -> None:
        """Let another take over at once."""
        if self.renewed is None:
            return
        self.renewed = self._mine = None
        try:
            async with asyncio.timeout(self._times.retry):
                lease = await self._cluster.get(LEASE, *self._place)
                if lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"]["holderIdentity"] = ""
                    lease["spec"]["leaseDurationSeconds"] = 1
                    await self._cluster.replace(lease)
        except (DisagfusionError, TimeoutError) as error:
            _log.warning("lease not released", problem=str(error))

    async def try_once(self) -> bool:
        """Take or renew the Lease if it can be had; return whether this process has it."""
        begin = self._clock()
        try:
            # A try must not outlast the office.
            async with asyncio.timeout(self._left() if self.leads else self._times.renew):
                won = await self._take()
        except (AbortedError, AlreadyExistsError, NotFoundError):
            # Somebody wrote it, who need not have taken it: the next try looks.
            self._mine = None
            return self.leads
        except (DisagfusionError, TimeoutError) as error:
            _log.warning("lease not reached", problem=str(error) or "no answer in time")
            return self.leads
        # From before the call: the others count from when they see the change.
        self.renewed = begin if won else None
        return won

    async def _take(self) -> bool:
        lease = self._mine
        if lease is None:
            try:
                lease = await self._cluster.get(LEASE, *self._place)
            except NotFoundError:
                self._mine = await self._cluster.replace(self._lease({}, 0))
                return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = version, self._clock()
        if holder not in ("", self._identity):
            patience = float(spec.get("leaseDurationSeconds") or self._times.duration)
            if self._clock() - self._seen[1] < patience:
                if holder != self._told:
                    self._told = holder
                    _log.info("stands by", leader=holder)
                return False
        changes = int(spec.get("leaseTransitions") or 0) + (holder != self._identity)
        wanted = self._lease(lease, changes)
        if holder == self._identity:
            wanted["spec"]["acquireTime"] = spec.get("acquireTime")
        self._mine = await self._cluster.replace(wanted)
        self._seen = self._mine["metadata"]["resourceVersion"], self._clock()
        return True

    def _lease(self, found: Object, changes: int) -> Object:
        now = text_of(self._today(), precision="microseconds")
        metadata = found.get("metadata") or {
            "namespace": self._place[0],
            "name": self._place[1],
        }
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(self._times.duration),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": changes,
            },
        }
