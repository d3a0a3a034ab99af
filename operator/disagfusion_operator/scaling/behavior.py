"""How a balancer behaves, by the specification."""

from __future__ import annotations

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling import behavior as core
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion_operator.api.base import number
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.scaling import Direction
from disagfusion_operator.scaling.capacity import FULL_SECONDS, patience

LOADING_SECONDS = 1800.0
"""For so long a pod that has a node may pull and load before it counts as failed."""


def settings_of(spec: Spec) -> BalancerSettings:
    """Return how the balancer of a pipeline behaves, by its own clock.

    Raises:
        InvalidArgumentError: A number is out of bounds.
    """
    scaling, scale = spec.scaling, time_scale(spec)
    waiting = max(patience(pool) for pool in spec.pools.values())
    zero = scaling.scale_to_zero
    return BalancerSettings(
        period=scaling.period_seconds / scale,
        paused=scaling.paused,
        tolerance=_share("tolerance", scaling.tolerance),
        change_timeout=(waiting + LOADING_SECONDS) / scale,
        full_seconds=FULL_SECONDS / scale,
        sizing="demand" if scaling.objective == "Cost" else "budget",
        headroom=float(number(scaling.headroom)),
        behavior=core.Behavior(
            _direction(scaling.behavior.scale_up, core.Behavior().up, "scaleUp"),
            _direction(scaling.behavior.scale_down, core.Behavior().down, "scaleDown"),
        ),
        zero_after=None if zero is None else zero.after_seconds / scale,
    )


def time_scale(spec: Spec) -> float:
    """Return the seconds that pass for one of the balancer's: emulated accelerators may be fast."""
    return 1.0 if spec.model.emulated is None else spec.model.emulated.time_scale


def _direction(given: Direction, default: core.Direction, name: str) -> core.Direction:
    window = given.stabilization_window_seconds
    return core.Direction(
        default.stabilization_window_seconds if window is None else float(window),
        tuple(
            core.RatePolicy(one.type, one.value, float(one.period_seconds))
            for one in given.policies
        )
        or default.policies,
        given.select_policy,
        _share(f"behavior.{name}.tolerance", given.tolerance),
    )


def _share(field: str, quantity: str | int) -> float:
    value = float(number(quantity))
    if value >= 1.0:
        raise InvalidArgumentError(
            f"spec.scaling.{field}", str(quantity), expected="a share below 1"
        )
    return value
