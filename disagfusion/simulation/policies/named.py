"""Rules by the names that people give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.decision import Balancer
from disagfusion.scheduling.predictors import ProfilePredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.calibration import Calibrating
from disagfusion.simulation.checks import check_names, check_room, fitting
from disagfusion.simulation.monolith import monolith_profile
from disagfusion.simulation.policies.bounds import Bounds
from disagfusion.simulation.policies.hpa import Hpa
from disagfusion.simulation.policies.plain import Plain
from disagfusion.simulation.policies.reference import Mode, Reference
from disagfusion.simulation.policies.static import Static
from disagfusion.simulation.services import Services
from disagfusion.simulation.workload import Workload

NAMES = (
    "hybrid", "elastic", "calibrating", "predict", "feedback", "reference", "hpa", "plain",
    "static", "monolith",
)  # fmt: skip

_LEARNING = ("hybrid", "elastic", "calibrating")
_MODES: dict[str, Mode] = {"predict": "predict", "feedback": "feedback", "reference": "both"}

Ratio = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a simulation is made of.

    Attributes:
        balancer: The rule.
        profile: What stages cost: the given one, or the unsplit pipeline's.
        initial: The replicas at the start.
        learn: Whether the rule makes use of what was learned from jobs that ended.
    """

    balancer: Balancer[Any]
    profile: Profile
    initial: Ratio
    learn: bool = False


def set_up(
    policy: str,
    profile: Profile,
    workload: Workload,
    plan: Callable[[], Ratio],
    settings: BalancerSettings | None = None,
) -> Setup:
    """Return what a policy's name stands for.

    Args:
        policy: `hybrid`, `elastic` (the same with as many replicas as the demand needs),
            `calibrating` (the same with parameters that it tries again), `predict`,
            `feedback`, `reference`, `hpa`, `plain`, `static` (the workload's initial ratio),
            `static:1:6:1` (replicas in the order of the stages), `monolith:NAME` or
            `monolith:NAME:REPLICAS`.
        profile: What stages cost.
        workload: Its `initial` is where every rule begins but `static:…`.
        plan: Gives the initial ratio where the workload has none.
        settings: Of `hybrid`.

    Raises:
        InvalidArgumentError: There is no such policy, or it does not fit the profile.
    """
    kind, *rest = policy.split(":")
    check_names(workload, profile)
    if kind == "monolith":
        setup = _monolith(policy, rest, profile, workload)
        check_room(workload, setup.profile, setup.initial, "--policy")
        return setup
    if kind == "static" and rest:
        initial = _ratio(policy, rest, profile)
        check_room(workload, profile, initial, "--policy")
        return Setup(Static(policy), fitting(workload, profile, initial), initial)
    if rest or kind not in NAMES:
        raise InvalidArgumentError("--policy", repr(policy), expected=", ".join(NAMES))
    initial = plan() if workload.initial is None else dict(workload.initial)
    profile = fitting(workload, profile, initial)
    rule = _rule(kind, profile, workload, settings)
    return Setup(rule, profile, initial, learn=kind in _LEARNING)


def _rule(
    kind: str, profile: Profile, workload: Workload, settings: BalancerSettings | None
) -> Balancer[Any]:
    predictor = ProfilePredictor(profile)
    stages = tuple(profile.stages)
    match kind:
        case "static":
            return Static()
        case "hybrid":
            return _hybrid(profile, workload, settings)
        case "elastic":
            elastic = replace(settings or BalancerSettings(), sizing="demand")
            return _hybrid(profile, workload, elastic)
        case "calibrating":
            return Calibrating(
                partial(_hybrid, profile, workload),
                profile,
                Services(profile, workload).rebind_seconds,
                workload.budget,
                settings or BalancerSettings(),
            )
    pool = _only_pool(kind, profile)
    if kind == "hpa":
        return Hpa(profile, pool)
    bounds = Bounds(profile, pool, workload.budget)
    if kind == "plain":
        return Plain(stages, pool, predictor, bounds)
    return Reference(stages, pool, predictor, bounds, _MODES[kind])


def _hybrid(profile: Profile, workload: Workload, settings: BalancerSettings | None) -> Hybrid:
    services = Services(profile, workload)
    return Hybrid(
        profile,
        ProfilePredictor(profile),
        services.rebind_seconds,
        settings,
        budget=workload.budget,
        loads_ahead=services.loads_ahead,
    )


def _monolith(policy: str, rest: list[str], profile: Profile, workload: Workload) -> Setup:
    name, *count = rest or [""]
    whole = monolith_profile(profile, name)
    pool, accelerators = next(iter(whole.pools.items()))
    budget = accelerators.accelerators if workload.budget is None else workload.budget
    each = whole.stages["pipeline"].pools[pool].accelerators
    replicas = _counts(policy, count)[0] if count else budget // each
    return Setup(Static(policy), whole, {"pipeline": {pool: replicas}})


def _ratio(policy: str, rest: list[str], profile: Profile) -> Ratio:
    counts = _counts(policy, rest)
    if len(counts) != len(profile.stages):
        expected = "one number for each of " + ", ".join(profile.stages)
        raise InvalidArgumentError("--policy", repr(policy), expected=expected)
    pool = _only_pool(policy, profile)
    return {stage: {pool: n} for stage, n in zip(profile.stages, counts, strict=True)}


def _counts(policy: str, given: list[str]) -> list[int]:
    if not all(one.isascii() and one.isdigit() and int(one) for one in given):
        raise InvalidArgumentError(
            "--policy", repr(policy), expected="numbers of replicas, above 0"
        )
    return [int(one) for one in given]


def _only_pool(policy: str, profile: Profile) -> str:
    """Return the pool that all stages run on: these rules know one kind of accelerator."""
    shared = [
        pool
        for pool in profile.pools
        if all(pool in stage.pools for stage in profile.stages.values())
    ]
    if len(profile.pools) != 1 or len(shared) != 1:
        raise InvalidArgumentError(
            "--policy", f"{policy} knows one pool", expected="a profile with a single pool"
        )
    return shared[0]
