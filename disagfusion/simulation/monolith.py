"""The unsplit pipeline as a profile of one stage."""

from __future__ import annotations

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.profile import Monolith, Profile, StagePool, StageProfile
from disagfusion.scheduling.shapes import FEATURES, CostModel


def monolith_profile(profile: Profile, name: str) -> Profile:
    """Return a profile whose only stage, `pipeline`, is the whole pipeline.

    Raises:
        InvalidArgumentError: The profile has no such monolith.
    """
    monolith = profile.monoliths.get(name)
    if monolith is None:
        known = ", ".join(profile.monoliths) or "none: add `monoliths` to the profile"
        raise InvalidArgumentError("--policy", f"no monolith {name!r}", expected=known)
    pool = StagePool(model=_whole(profile, monolith), accelerators=monolith.accelerators)
    return Profile(
        name=f"{profile.name}: {name} monolith",
        source=monolith.source or profile.source,
        pools={monolith.pool: profile.pools[monolith.pool]},
        stages={"pipeline": StageProfile(pools={monolith.pool: pool})},
    )


def _whole(profile: Profile, monolith: Monolith) -> CostModel:
    sums = dict.fromkeys(FEATURES, 0.0)
    for stage in profile.stages.values():
        pool = stage.pools[monolith.pool]
        if pool.seconds is not None:
            sums["constant"] += pool.seconds
        elif pool.model is not None:
            for feature, coefficient in zip(FEATURES, pool.model.coefficients, strict=True):
                sums[feature] += coefficient
    coefficients = {feature: monolith.seconds_ratio * value for feature, value in sums.items()}
    coefficients["constant"] += monolith.extra_seconds
    return CostModel(**coefficients)
