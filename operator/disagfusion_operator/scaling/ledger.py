"""Who holds how much of which pool of the cluster, and who may."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

from disagfusion.scheduling.decision import Place
from disagfusion_operator.api.pools import Pool, Toleration
from disagfusion_operator.scaling.capacity import (
    FULL_SECONDS,
    Full,
    Learned,
    Offer,
    Overdue,
    PoolKey,
    making_room,
    offered,
)
from disagfusion_operator.scaling.division import Division, divide
from disagfusion_operator.scaling.fleet import Account, Pod
from disagfusion_operator.scaling.table import Claim
from disagfusion_operator.scaling.view import ClusterView, Key

GRACE_SECONDS = 30.0
"""After which pools are divided although some pipeline has not been seen."""
DIVIDE_SECONDS = 5.0
"""Between two divisions where nothing but the load has changed."""
SETTLE_SECONDS = 60.0
"""For so long a division stays after the load has changed it: replicas have to drain and load."""
MANY = 200
"""Pipelines; more are divided among in a thread, which takes a while."""
_HURRY_SECONDS = 1.0
"""The same where pipelines, bounds or pools have."""
_RESTS = 4.0
"""Times the seconds that a division took pass until the next one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A pipeline in the ledger.

    Attributes:
        claim: What it needs.
        pools: Of its specification, by the cluster's.
        accounts: Its replicas, by place.
        others: Accelerators of replicas at places that it no longer has.
        elsewhere: What their pods hold, by node and resource.
    """

    claim: Claim
    pools: Mapping[PoolKey, Pool]
    accounts: Mapping[Place, Account]
    others: int = 0
    elsewhere: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def held(self) -> Counter[PoolKey]:
        """Return the accelerators that its replicas hold or have been promised, by pool."""
        return self._count({place: one.held for place, one in self.accounts.items()})

    def placed(self) -> Counter[PoolKey]:
        """Return the accelerators that pods with a node hold, by pool."""
        return self._count(
            {place: one.placed + len(one.leaving) for place, one in self.accounts.items()}
        )

    def made(self) -> Counter[PoolKey]:
        """Return the accelerators of the pods that there are and stay, by pool."""
        return self._count({place: len(one.live) for place, one in self.accounts.items()})

    def on(self, nodes: frozenset[str]) -> Counter[PoolKey]:
        """Return the accelerators that pods on some nodes hold, by pool."""
        return self._count(
            {
                place: sum(pod.node in nodes for pod in (*one.live, *one.leaving))
                for place, one in self.accounts.items()
            }
        )

    def _count(self, counts: Mapping[Place, int]) -> Counter[PoolKey]:
        found: Counter[PoolKey] = Counter()
        for place, count in counts.items():
            seat = self.claim.seats[place]
            found[seat.pool] += count * seat.accelerators
        return found

    @property
    def terms(self) -> tuple[object, ...]:
        """What a division rests on, besides the load."""
        claim = self.claim
        return (
            *(claim.priority, claim.budget, *claim.least.items(), *claim.most.items()),
            *(tuple(claim.limits.items()), tuple(claim.seats)),
        )


@dataclass(slots=True)
class Ledger:
    """Of all pipelines."""

    learned: Learned = field(default_factory=Learned)
    _entries: dict[Key, Entry] = field(default_factory=dict)
    _held: Counter[PoolKey] = field(default_factory=Counter)
    _placed: Counter[PoolKey] = field(default_factory=Counter)
    _users: Counter[PoolKey] = field(default_factory=Counter)
    _freed_at: dict[PoolKey, float] = field(default_factory=dict)
    _closed: dict[PoolKey, frozenset[str]] = field(default_factory=dict)
    _elsewhere: dict[Key, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    _offers: dict[tuple[PoolKey, tuple[Toleration, ...]], Offer] = field(default_factory=dict)
    _offers_version: int | None = None
    _capacity: dict[PoolKey, int] = field(default_factory=dict)
    _offered: dict[PoolKey, int] = field(default_factory=dict)
    _division: Division | None = None
    _divided_at: float = 0.0
    _settled_at: float = 0.0
    _changed: bool = True
    _outdated: set[Key] = field(default_factory=set)
    _divided_for: set[Key] = field(default_factory=set)
    _structural: bool = True
    _dividing: bool = False
    _took: float = 0.0
    _begun: float | None = None

    def enter(self, entry: Entry, now: float) -> None:
        """Take note of a pipeline as it is."""
        key = entry.claim.key
        before = self._entries.get(key)
        self._add(before, -1)
        self._entries[key] = entry
        self._add(entry, 1)
        if before is None or before.terms != entry.terms:
            self._outdate(key)
        for place, account in entry.accounts.items():
            if self.making_room(pool := entry.claim.seats[place].pool, account, now):
                self._freed_at[pool] = now
        self._note(key, entry.elsewhere or None)
        for pool in entry.claim.pools:
            if self.learned.disprove(pool, self._placed[pool], self._offered.get(pool, 0)):
                self._changed = True

    def hold(self, key: Key, found: Mapping[tuple[str, str], int]) -> None:
        """Take note of what pods hold of a pipeline of which nothing else is known.

        Args:
            key: Which pipeline; nothing happens where it has been entered.
            found: By node and resource.
        """
        if key not in self._entries:
            self._note(key, found)

    def _note(self, key: Key, found: Mapping[tuple[str, str], int] | None) -> None:
        if self._elsewhere.get(key) == found:
            return
        self._changed = True
        if found is None:
            del self._elsewhere[key]
        else:
            self._elsewhere[key] = found

    def forget(self, key: Key) -> None:
        """Give up a pipeline."""
        self._add(self._entries.pop(key, None), -1)
        self._note(key, None)
        self._changed = True
        self._outdated.discard(key)
        self._divided_for.discard(key)

    def making_room(self, pool: PoolKey, account: Account, now: float) -> tuple[Pod, ...]:
        """Return the pods of a place that leave and will soon have made room in its pool."""
        return making_room(account, self._closed.get(pool, ()), now)

    def moving(
        self, claim: Claim, accounts: Mapping[Place, Account], now: float
    ) -> dict[Place, Account]:
        """Return accounts without pods that leave and make no room: nothing waits for them."""
        found = dict(accounts)
        for place, account in accounts.items():
            if account.leaving and (seat := claim.seats.get(place)) is not None:
                leaving = self.making_room(seat.pool, account, now)
                found[place] = replace(account, leaving=leaving)
        return found

    def freed_at(self, pool: PoolKey) -> float:
        """Return when somebody was leaving a pool last."""
        return self._freed_at.get(pool, 0.0)

    def fill(self, key: Key, pool: PoolKey, found: Overdue, now: float) -> bool:
        """Take note that no more of a pool can be had; return whether that is news."""
        self._outdate(key)
        until = now + FULL_SECONDS
        if found.quota:
            mine = self._entries[key].made()[pool]
            return self.learned.note(pool, str(key), Full(mine, until, found.message))
        full = Full(self._placed[pool], until, found.message, self._offered.get(pool, 0))
        return self.learned.note(pool, "", full)

    def full(self, key: Key, pool: PoolKey, now: float) -> Full | None:
        """Return why no more of a pool can be had by a pipeline; None where more can."""
        return self.learned.at(pool, str(key), now)

    def shares(self, key: Key, cluster: ClusterView, now: float) -> Mapping[PoolKey, int] | None:
        """Return what a pipeline may have of each pool; None: that is not known yet."""
        self._divide(cluster, now)
        return None if self._division is None else self._division.shares.get(key)

    def current(self, key: Key) -> bool:
        """Whether shares and targets are of a pipeline as it is.

        They are not from a change of its bounds, or a pool that has turned out to be full, until
        pools have been divided anew.
        """
        return key not in self._outdated and key not in self._divided_for

    def _outdate(self, key: Key) -> None:
        self._outdated.add(key)
        self._changed = True

    def targets(self, key: Key) -> Mapping[Place, int]:
        """Return the replicas that its shares are meant for."""
        return {} if self._division is None else self._division.targets.get(key, {})

    def shared(self, pool: PoolKey) -> bool:
        """Whether several pipelines use a pool."""
        return self._users[pool] > 1

    def room(self, key: Key, pool: PoolKey) -> int:
        """Return the accelerators of a pool that a pipeline may take now.

        What terminates still holds its accelerators, whoever's it is.
        """
        shares = None if self._division is None else self._division.shares.get(key)
        if shares is None:
            return 0
        mine = shares.get(pool, 0) - self._entries[key].held()[pool]
        return max(0, min(mine, self._capacity.get(pool, 0) - self._held[pool]))

    def _add(self, entry: Entry | None, sign: int) -> None:
        if entry is None:
            return
        for pool, count in entry.held().items():
            self._held[pool] += sign * count
        for pool, count in entry.placed().items():
            self._placed[pool] += sign * count
        for pool in entry.claim.pools:
            self._users[pool] += sign

    async def refresh(self, cluster: ClusterView, now: float, threads: Executor) -> None:
        """Divide in a thread where it would take long and is due."""
        if self._dividing or len(self._entries) <= MANY or not self._due(cluster, now):
            return
        self._dividing = True
        try:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            prepared = self._prepare(cluster, now)
            self._adopt(await loop.run_in_executor(threads, divide, *prepared), now)
            self._took = loop.time() - begun
        finally:
            self._dividing = False

    def _divide(self, cluster: ClusterView, now: float) -> None:
        if len(self._entries) <= MANY and self._due(cluster, now):
            self._adopt(divide(*self._prepare(cluster, now)), now)

    def _due(self, cluster: ClusterView, now: float) -> bool:
        self._begun = now if self._begun is None else self._begun
        unseen = set(cluster.pipelines) - self._entries.keys() - self._elsewhere.keys()
        if unseen and now - self._begun < GRACE_SECONDS:
            return False
        if self._offers_version != cluster.nodes_version:
            self._offers_version = cluster.nodes_version
            self._offers.clear()
            self._changed = True
        # With a thousand pipelines it takes a while, which everything else is to have most of.
        rest = max(_HURRY_SECONDS if self._changed else DIVIDE_SECONDS, _RESTS * self._took)
        if self._division is not None and now - self._divided_at < rest:
            return False
        return self._changed or now >= self._settled_at

    def _prepare(
        self, cluster: ClusterView, now: float
    ) -> tuple[list[Claim], dict[PoolKey, int], Division | None]:
        self._structural, self._changed, self._divided_at = self._changed, False, now
        self._divided_for |= self._outdated
        self._outdated.clear()
        claims = [self._bounded(entry.claim, now) for entry in self._entries.values()]
        self._capacity = self._capacities(cluster, now)
        return claims, self._capacity, self._division

    def _adopt(self, division: Division, now: float) -> None:
        before, self._division = self._division, division
        self._divided_for.clear()
        if not self._structural and before is not None and division.shares != before.shares:
            self._settled_at = now + SETTLE_SECONDS

    def _capacities(self, cluster: ClusterView, now: float) -> dict[PoolKey, int]:
        """Return how many accelerators each pool has for all."""
        totals: dict[PoolKey, int] = {}
        wishes: Counter[PoolKey] = Counter()
        self._offered.clear()
        closed: dict[PoolKey, frozenset[str]] = {}
        for entry in self._entries.values():
            for pool in entry.pools:
                offer = self._offer(pool, entry.pools[pool], cluster)
                there, wish = _bounds(entry, pool, offer)
                totals[pool] = max(totals.get(pool, 0), there)
                wishes[pool] += wish
                if offer is not None:
                    closed[pool] = closed.get(pool, frozenset()) | offer.closed
        self._closed = closed
        for pool, wish in wishes.items():
            totals[pool] = max(totals[pool], wish)
        # Replicas on a node that takes no more go on there: that is not less than there was.
        for pool, nodes in closed.items():
            if nodes:
                totals[pool] += sum(one.on(nodes)[pool] for one in self._entries.values())
        for pool in totals:
            found = self.learned.at(pool, "", now)
            if found is not None:
                totals[pool] = min(totals[pool], found.accelerators)
        return dict(sorted(totals.items()))

    def _offer(self, pool: PoolKey, spec: Pool, cluster: ClusterView) -> Offer | None:
        """Return what nodes have for those that the ledger knows; None: that cannot be seen."""
        if spec.accelerator is None or not cluster.nodes:
            return None
        known = (pool, spec.tolerations)
        if known not in self._offers:
            self._offers[known] = offered(cluster.nodes, pool, spec.tolerations)
        offer = self._offers[known]
        self._offered[pool] = max(self._offered.get(pool, 0), offer.accelerators)
        taken = sum(
            count
            for found in self._elsewhere.values()
            for (node, resource), count in found.items()
            if resource == pool.resource and node in offer.open
        )
        return replace(offer, accelerators=max(0, offer.accelerators - taken)) if taken else offer

    def _bounded(self, claim: Claim, now: float) -> Claim:
        """Return a claim within what a quota lets it have."""
        limits = dict(claim.limits)
        for pool in claim.pools:
            found = self.learned.of(pool, str(claim.key), now)
            if found is not None:
                limits[pool] = min(limits.get(pool, found.accelerators), found.accelerators)
        return claim if limits == claim.limits else replace(claim, limits=limits)


def _bounds(entry: Entry, pool: PoolKey, offer: Offer | None) -> tuple[int, int]:
    """Return the accelerators of a pool that are there for all, and those a pipeline adds to it.

    Where nobody says how many there are, it has room for what the pipelines may take, or at least
    for what they have to have: without a pod that waits no node would ever come.

    Args:
        entry: Of the pipeline.
        pool: Which one.
        offer: What its nodes have; None: that cannot be seen, or does not count.
    """
    spec, claim = entry.pools[pool], entry.claim
    stages = {place.stage for place, seat in claim.seats.items() if seat.pool == pool}
    # What sleeps has to have room for when it wakes.
    least = sum(max(1, claim.least[stage]) for stage in stages) * spec.accelerators
    budget = claim.budget
    there = 0 if offer is None else offer.accelerators
    if spec.capacity is not None:
        if offer is None or spec.provisioning == "Autoscaled":
            there = max(there, spec.capacity)
        return there, 0
    if spec.provisioning == "Autoscaled":
        return there, least if budget is None else budget
    if offer is None:
        return budget or 0, least if budget is None else min(least, budget)
    return there, 0
