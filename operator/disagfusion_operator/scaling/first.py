"""The replicas that a pipeline begins with."""

from __future__ import annotations

from collections.abc import Mapping

from disagfusion.errors import DisagfusionError
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import WeightedShape

_SEARCH_LIMIT = 200


def first_replicas(
    profile: Profile,
    mix: tuple[WeightedShape, ...],
    budget: int,
    usable: Mapping[str, int],
) -> dict[Place, int] | None:
    """Return the exact plan for a whole budget; None: there is none.

    Args:
        profile: Stages and pools.
        mix: Shapes of jobs.
        budget: Accelerators in all.
        usable: The same by pool.
    """
    pools = {
        name: pool.model_copy(update={"accelerators": usable.get(name, 0)})
        for name, pool in profile.pools.items()
    }
    try:
        found = plan(
            profile.model_copy(update={"pools": pools}),
            Demand(shapes=mix),
            budget,
            limit=_SEARCH_LIMIT,
            compare=False,
        )
    except DisagfusionError:
        return None
    return {
        Place(stage, pool): count
        for stage, pools_of in found.replicas.items()
        for pool, count in pools_of.items()
    }
