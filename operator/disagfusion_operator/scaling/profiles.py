"""The profile of a pipeline: what people measured, within what its specification says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.document import parse, validate
from disagfusion.scheduling.profile import Pool, Profile, StagePool, StageProfile
from disagfusion.scheduling.shapes import CostModel
from disagfusion_operator.api import pools
from disagfusion_operator.api.base import number
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.scaling.bounds import Bounds

UNBOUNDED = 1_000_000
"""Accelerators of a pool in a profile: what there is at a time is told with each observation."""

_GIB = 1 << 30
_NAME = "spec.scaling.profile"


def read_profile(source: str | Mapping[str, Any], name: str = _NAME) -> Profile:
    """Read what `scaling.profile` refers to.

    Args:
        source: The text in a ConfigMap, or the object that is written inline.
        name: Of where it stands, for errors.

    Raises:
        InvalidArgumentError: Naming the field that is wrong.
    """
    if isinstance(source, str):
        return parse(Profile, source, name=name)
    return validate(Profile, dict(source), name=name)


def bounded(spec: Spec, profile: Profile, bounds: Bounds) -> Profile:
    """Return a profile of exactly the pipeline's stages and pools.

    Pools of the specification have the memory, cost and accelerators that it gives. One that the
    profile does not know is `speed` times as fast as the profile's first for the stage.

    Args:
        spec: What people wrote.
        profile: What stages cost.
        bounds: Of the replicas at the moment.

    Raises:
        InvalidArgumentError: The profile has no costs of a stage, or none on a pool where it may
            run.
    """
    stages = {}
    for stage, what in spec.stages.items():
        known = profile.stages.get(stage)
        if known is None:
            raise InvalidArgumentError(
                f"{_NAME}.stages", f"{stage} is missing", expected="encoder, dit and decoder"
            )
        where = {
            pool: entry
            for pool in spec.pools_of(stage)
            if (entry := _entry(spec, profile, known, pool, named=pool in what.pools)) is not None
        }
        if not where:
            raise InvalidArgumentError(
                f"{_NAME}.stages.{stage}.pools",
                f"none of {', '.join(spec.pools_of(stage))}",
                expected="costs on a pool where the stage may run",
            )
        stages[stage] = known.model_copy(
            update={"min": bounds.least[stage], "max": bounds.most[stage], "pools": where}
        )
    return Profile(
        name=profile.name,
        source=profile.source,
        overhead_seconds=profile.overhead_seconds,
        pools={name: _pool(one, profile.pools.get(name)) for name, one in spec.pools.items()},
        stages=stages,
    )


def guessed(spec: Spec, seconds: Mapping[str, float], bounds: Bounds) -> Profile:
    """Return the profile of a pipeline of which little is known.

    Args:
        spec: What people wrote.
        seconds: Of a job in each stage, on a pool of speed 1.
        bounds: Of the replicas at the moment.
    """
    return Profile(
        source="the first jobs",
        pools={name: _pool(one, None) for name, one in spec.pools.items()},
        stages={
            stage: StageProfile(
                min=bounds.least[stage],
                max=bounds.most[stage],
                pools={
                    pool: StagePool(
                        seconds=seconds[stage] / float(number(spec.pools[pool].speed)),
                        accelerators=spec.pools[pool].accelerators,
                    )
                    for pool in spec.pools_of(stage)
                },
            )
            for stage, _ in spec.stages.items()
        },
    )


def _pool(pool: pools.Pool, known: Pool | None) -> Pool:
    memory = known.memory_gib if known else None
    if pool.memory is not None:
        memory = float(number(pool.memory) / _GIB)
    return (known or Pool(accelerators=0)).model_copy(
        update={
            "accelerators": UNBOUNDED,
            "memory_gib": memory,
            "cost_per_hour": float(number(pool.cost_per_hour))
            or (known.cost_per_hour if known else 0.0),
            # Where pods do not change their stage, what would be loaded ahead is another pod's.
            "load_ahead": pool.flex is not None and known is not None and known.load_ahead,
        }
    )


def _entry(
    spec: Spec, profile: Profile, stage: StageProfile, pool: str, *, named: bool
) -> StagePool | None:
    """Return what a stage costs on a pool; None where by the profile it does not run there."""
    taken = spec.pools[pool].accelerators
    if pool in stage.pools:
        return stage.pools[pool].model_copy(update={"accelerators": taken})
    if pool in profile.pools and not named:
        return None
    speed = float(number(spec.pools[pool].speed))
    there = next(iter(stage.pools.values()))
    if there.model is None:
        assert there.seconds is not None, "a profile has one of the two"
        return there.model_copy(update={"seconds": there.seconds / speed, "accelerators": taken})
    faster = {name: value / speed for name, value in there.model.model_dump().items()}
    return there.model_copy(update={"model": CostModel(**faster), "accelerators": taken})
