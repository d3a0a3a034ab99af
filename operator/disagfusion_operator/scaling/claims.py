"""What a pipeline claims of pools that it may share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from disagfusion.scheduling.decision import Place
from disagfusion_operator.api.base import STAGES, number
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.scaling.bounds import Bounds
from disagfusion_operator.scaling.capacity import PoolKey, holdings, key_of
from disagfusion_operator.scaling.fleet import Account, place_of, read_accounts
from disagfusion_operator.scaling.flex import arranged, changing, together
from disagfusion_operator.scaling.ledger import Entry
from disagfusion_operator.scaling.table import Claim, Seat
from disagfusion_operator.scaling.view import Key, PipelineView


def claim_of(
    key: Key,
    spec: Spec,
    bounds: Bounds,
    places: tuple[Place, ...],
    speed: Callable[[Place], float],
    need: Mapping[str, float],
    held: Mapping[Place, int],
    *,
    asleep: bool,
) -> Claim:
    """Return what a pipeline claims.

    Args:
        key: Which one.
        spec: The pipeline's.
        bounds: Of its replicas at the moment.
        places: Where its stages can run.
        speed: Returns jobs per second of a replica.
        need: Stage → jobs per second that it has to do.
        held: Replicas that there should be, by place.
        asleep: Whether all stages are at zero for want of work: then nothing is kept for it.
    """
    keys = {name: key_of(pool, str(key)) for name, pool in spec.pools.items()}
    auto = spec.scaling.mode == "Auto"
    limits: dict[PoolKey, int] = {}
    for key_of_pool in set(keys.values()):
        bounds_of = [
            pool.capacity for name, pool in spec.pools.items() if keys[name] == key_of_pool
        ]
        known = [bound for bound in bounds_of if bound is not None]
        if len(known) == len(bounds_of):
            limits[key_of_pool] = sum(known)
    return Claim(
        key=key,
        priority=spec.scaling.priority,
        seats={
            place: Seat(
                keys[place.pool],
                spec.pools[place.pool].accelerators,
                speed(place),
                float(number(spec.pools[place.pool].cost_per_hour))
                * spec.pools[place.pool].accelerators,
            )
            for place in places
        },
        least=dict.fromkeys(bounds.least, 0) if asleep else bounds.least,
        most=bounds.most,
        need=need if auto else {},
        held={place: count for place, count in held.items() if place in places},
        budget=bounds.budget,
        limits=limits,
        expands=auto and spec.scaling.objective == "Throughput",
    )


def lacking(
    claim: Claim, accounts: Mapping[Place, Account], places: Iterable[Place]
) -> dict[Place, int]:
    """Return what each of some places has to have of its stage's minimum, as others are now.

    Args:
        claim: Of the pipeline.
        accounts: By place.
        places: Which.
    """
    asked = {place: one.asked for place, one in accounts.items()}
    return {
        place: max(
            0,
            claim.least.get(place.stage, 0)
            - sum(n for at, n in asked.items() if at.stage == place.stage and at != place),
        )
        for place in places
    }


def opposed(
    claim: Claim,
    accounts: Mapping[Place, Account],
    deployments: Mapping[Place, Object],
    foreign: Mapping[Place, int],
) -> dict[Place, int]:
    """Return those changes by others that leave a stage less than its minimum.

    Args:
        claim: Of the pipeline.
        accounts: By place.
        deployments: By place.
        foreign: Replicas that others have asked for, by the first place of a Deployment.
    """
    found = {}
    for place, count in foreign.items():
        places = together(deployments)[deployments[place]["metadata"]["name"]]
        if count < sum(lacking(claim, accounts, places).values()):
            found[place] = count
    return found


def leaving(view: PipelineView) -> Entry:
    """Return a pipeline that is being deleted: it holds what it has, and may have nothing."""
    spec = view.spec
    places = tuple(Place(*place) for place in spec.places())
    accounts = read_accounts(view.pods, view.deployments, {})
    none = Bounds(dict.fromkeys(STAGES, 0), dict.fromkeys(STAGES, None), 0)
    claim = claim_of(view.key, spec, none, places, lambda place: 1.0, {}, {}, asleep=False)
    return entry_of(claim, spec, accounts, view.pods)


def entry_of(
    claim: Claim, spec: Spec, accounts: Mapping[Place, Account], pods: Iterable[Object]
) -> Entry:
    """Return a pipeline for the ledger.

    Args:
        claim: Its own.
        spec: The pipeline's.
        accounts: Its replicas, also at places that it no longer has.
        pods: The same as objects.
    """
    pools = {key_of(pool, str(claim.key)): pool for pool in spec.pools.values()}
    others = sum(
        account.held * (spec.pools[place.pool].accelerators if place.pool in spec.pools else 1)
        for place, account in accounts.items()
        if place not in claim.seats
    )
    mine = {place: one for place, one in accounts.items() if place in claim.seats}
    used = {key: pool for key, pool in pools.items() if key in claim.pools}
    elsewhere = holdings(pod for pod in pods if others and place_of(pod) not in claim.seats)
    return Entry(claim, used, mine, others, elsewhere)


def undecided(
    view: PipelineView, accounts: Mapping[Place, Account], least: Mapping[Place, int]
) -> dict[Place, int]:
    """Return which stages pods that change theirs should have where nobody decides it.

    Args:
        view: Of the pipeline.
        accounts: By place.
        least: Minima of the places that are asked for.
    """
    found: dict[Place, int] = {}
    for group in changing(view.deployments):
        mine = [place for place in group if place in least]
        if mine:
            total = sum(accounts[place].asked for place in mine)
            live = {place: len(accounts[place].live) for place in mine}
            found |= arranged(total, live, least)
    return found
