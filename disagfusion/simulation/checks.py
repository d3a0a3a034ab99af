"""Whether a workload, a profile and a ratio fit together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.workload import Workload
from disagfusion.simulation.world import ROLES

Ratio = Mapping[str, Mapping[str, int]]


def check(workload: Workload, profile: Profile, initial: Ratio) -> None:
    """See whether a simulation can begin.

    Raises:
        InvalidArgumentError: It cannot; names the field.
    """
    if len(profile.stages) not in ROLES:
        raise InvalidArgumentError("stages", f"{len(profile.stages)} of them", expected="1 to 3")
    for stage, pools in initial.items():
        _known(f"initial.{stage}", "stage", stage, profile.stages)
        for pool, count in pools.items():
            if count:
                _known(f"initial.{stage}.{pool}", "pool", pool, profile.stages[stage].pools)
    for stage in profile.stages:
        if not sum(initial.get(stage, {}).values()):
            raise InvalidArgumentError(f"initial.{stage}", "no replica", expected="at least one")
    check_room(workload, profile, initial, "initial")
    for stage, pool, shape in _unfit(workload, profile):
        raise InvalidArgumentError(
            f"stages.{stage}.pools.{pool}", _needs(workload, profile, stage, pool, shape),
            expected=f"pools that all jobs fit; this one has {profile.pools[pool].memory_gib:g}",
        )  # fmt: skip


def check_room(workload: Workload, profile: Profile, initial: Ratio, field: str) -> None:
    """See whether replicas find room in the pools and in the budget.

    Args:
        workload: Has the budget.
        profile: Has the pools.
        initial: Stage → pool → replicas.
        field: Where they come from, for errors.

    Raises:
        InvalidArgumentError: They do not.
    """
    used: Counter[str] = Counter()
    for stage, pools in initial.items():
        for pool, count in pools.items():
            if count:
                used[pool] += count * profile.stages[stage].pools[pool].accelerators
    for pool, taken in used.items():
        there = profile.pools[pool].accelerators
        if taken > there:
            raise InvalidArgumentError(
                field, f"takes {taken} accelerators of {pool}", expected=f"at most {there}"
            )
    budget = workload.budget
    if budget is not None and used.total() > budget:
        raise InvalidArgumentError(
            field, f"takes {used.total()} accelerators", expected=f"at most the budget, {budget}"
        )


def check_names(workload: Workload, profile: Profile) -> None:
    """See whether a workload names stages and pools that there are.

    Raises:
        InvalidArgumentError: It names others; says in which field.
    """
    stages, pools = profile.stages, profile.pools
    if isinstance(workload.rebind_seconds, dict):
        for stage in workload.rebind_seconds:
            _known(f"rebind_seconds.{stage}", "stage", stage, stages)
    for stage, there in (workload.initial or {}).items():
        _known(f"initial.{stage}", "stage", stage, stages)
        for pool in there:
            _known(f"initial.{stage}.{pool}", "pool", pool, stages[stage].pools)
    events: list[tuple[str, str | None, str | None]]
    events = [(f"failures.{i}", one.pool, one.stage) for i, one in enumerate(workload.failures)]
    events += [(f"throttles.{i}", one.pool, one.stage) for i, one in enumerate(workload.throttles)]
    for field, where, which in events:
        if where is not None:
            _known(f"{field}.pool", "pool", where, pools)
        if which is not None:
            _known(f"{field}.stage", "stage", which, stages)


def fitting(workload: Workload, profile: Profile, initial: Ratio) -> Profile:
    """Return a profile whose stages run only on pools that all jobs of the workload fit.

    So it is planned, and a dispatcher does not know how much memory a job needs.

    Raises:
        InvalidArgumentError: A job fits no pool of a stage, or not one where a replica begins.
    """
    unfit: dict[str, dict[str, str]] = {}
    for stage, pool, shape in _unfit(workload, profile):
        unfit.setdefault(stage, {}).setdefault(pool, shape)
    stages = dict(profile.stages)
    for stage, pools in unfit.items():
        left = {name: one for name, one in stages[stage].pools.items() if name not in pools}
        memory = {pool: f"{profile.pools[pool].memory_gib:g}" for pool in pools}
        for pool, shape in pools.items():
            needs = _needs(workload, profile, stage, pool, shape)
            if initial.get(stage, {}).get(pool) and left:
                raise InvalidArgumentError(
                    f"initial.{stage}.{pool}", needs,
                    expected=f"replicas on {', '.join(left)}: {pool} has {memory[pool]}",
                )  # fmt: skip
            if not left:
                most = ", ".join(f"{gib} on {name}" for name, gib in memory.items())
                raise InvalidArgumentError(f"shapes.{shape}", needs, expected=f"at most {most}")
        stages[stage] = stages[stage].model_copy(update={"pools": left})
    return profile.model_copy(update={"stages": stages}) if unfit else profile


def _unfit(workload: Workload, profile: Profile) -> Iterator[tuple[str, str, str]]:
    """Yield stages and pools with the shape that needs most of those that do not fit."""
    coming = {shape for stream in workload.arrivals for shape in stream.shapes}
    coming |= {shape for _, shape in workload.trace}
    for stage, costs in profile.stages.items():
        for pool, cost in costs.pools.items():
            large = [
                (cost.memory_of(workload.shapes[shape]), shape)
                for shape in sorted(coming)
                if not profile.fits(stage, pool, workload.shapes[shape])
            ]
            if large:
                yield stage, pool, max(large)[1]


def _needs(workload: Workload, profile: Profile, stage: str, pool: str, shape: str) -> str:
    gib = profile.stages[stage].pools[pool].memory_of(workload.shapes[shape])
    return f"a job of shape {shape} needs {gib:.4g} GiB for {stage} on {pool}"


def _known(field: str, kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise InvalidArgumentError(field, f"there is no {kind} {name!r}", expected=", ".join(known))
