"""A pipeline and its share of the cluster at the time of one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from disagfusion.scheduling.decision import Place
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.scaling.bounds import Bounds
from disagfusion_operator.scaling.capacity import PoolKey
from disagfusion_operator.scaling.fleet import Account
from disagfusion_operator.scaling.table import Claim
from disagfusion_operator.scaling.view import PipelineView


@dataclass(frozen=True, slots=True)
class Moment:
    """What a step rests on.

    Attributes:
        view: As it was told.
        bounds: Of its replicas.
        claim: On pools.
        accounts: Its replicas, by place; also those at places that it no longer has.
        fixed: Places that somebody else scales, with who it is.
        shares: Pool → accelerators that it may have.
        now: Unix seconds.
    """

    view: PipelineView
    bounds: Bounds
    claim: Claim
    accounts: Mapping[Place, Account]
    fixed: Mapping[Place, str]
    shares: Mapping[PoolKey, int]
    now: float

    @property
    def spec(self) -> Spec:
        """What people wrote."""
        return self.view.spec

    @property
    def auto(self) -> bool:
        """Whether decisions are carried out."""
        return self.spec.scaling.mode == "Auto"

    @property
    def places(self) -> tuple[Place, ...]:
        """Where stages can run."""
        return tuple(self.claim.seats)

    def account(self, place: Place) -> Account:
        """Return the replicas of a place."""
        return self.accounts.get(place) or Account(0)

    @property
    def others(self) -> int:
        """Accelerators of replicas at places that the pipeline no longer has."""
        return sum(
            one.held * self._accelerators(place)
            for place, one in self.accounts.items()
            if place not in self.claim.seats
        )

    def usable(self) -> dict[str, int]:
        """Return the accelerators that may be used, by the pools' names in the specification."""
        names: dict[PoolKey, set[str]] = {}
        held: dict[str, int] = {}
        for place, seat in self.claim.seats.items():
            names.setdefault(seat.pool, set()).add(place.pool)
            count = self.account(place).held * seat.accelerators
            held[place.pool] = held.get(place.pool, 0) + count
        found = {}
        for key, pools in names.items():
            for pool in pools:
                # Of two names for the same nodes, each may have what the other one leaves.
                left = self.shares.get(key, 0) - sum(held[one] for one in pools if one != pool)
                capacity = self.spec.pools[pool].capacity
                found[pool] = max(0, left if capacity is None else min(left, capacity))
        return found

    def _accelerators(self, place: Place) -> int:
        pool = self.spec.pools.get(place.pool)
        return pool.accelerators if pool else 1
