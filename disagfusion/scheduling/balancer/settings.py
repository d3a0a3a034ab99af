"""How the balancer behaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from disagfusion.scheduling.behavior import Behavior


@dataclass(frozen=True, slots=True)
class BalancerSettings:
    """Parameters of the balancer; seconds where nothing else is said.

    Attributes:
        period: Between two decisions.
        paused: Whether nothing changes.
        tolerance: Share by which the outlook must improve before anything changes.
        passing_tolerance: The same for a change that does not raise the fleet's throughput for the
            jobs that come: it will have to be taken back.
        shortfall_tolerance: The same for a change after which the fleet would not keep up with the
            jobs that come, though it does now.
        lasting_gain: Share by which it must raise that to count as lasting.
        mix_window: Arrivals of so long decide which change is lasting.
        forecast_window: Arrivals of so long count for the forecast.
        forecast_horizon: They are expected to go on for so long; 0 looks at what is there only.
        shift_sigmas: Where the rates of jobs differ by so many standard deviations between two
            parts of the forecast's window, only the later part counts.
        delays: Later times at which the same change is tried in thought: where one of them is
            better than now, the change waits.
        weight_last: Of the time at which the last job ends, in what is minimized.
        weight_mean: Of the mean latency.
        weight_p95: Of the 95th percentile of latency.
        change_timeout: After which a change that is not finished counts as failed, beyond the
            time that it was predicted to take.
        full_seconds: For so long a pool counts as full in which replicas did not start.
        fallback: What happens when signals have been missing for `fallback_after`: nothing, or the
            ratio that the balancer was given as a fallback. Stages at zero come back in any case,
            as nobody knows that there is no work.
        fallback_after: See there.
        sizing: Whether the whole budget is used, or what the demand needs of it.
        headroom: With "demand": share on top of the jobs that come.
        drain_seconds: With "demand": within which what waits is to be worked off.
        behavior: With "demand": how fast stages grow and shrink, as of a HorizontalPodAutoscaler.
        zero_after: Without work for so long, all stages leave together; None: never.
    """

    period: float = 10.0
    paused: bool = False
    tolerance: float = 0.02
    passing_tolerance: float = 0.05
    shortfall_tolerance: float = 0.15
    lasting_gain: float = 0.05
    mix_window: float = 900.0
    forecast_window: float = 180.0
    forecast_horizon: float = 180.0
    shift_sigmas: float = 3.5
    delays: tuple[float, ...] = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
    weight_last: float = 1.0
    weight_mean: float = 1.0
    weight_p95: float = 1.0
    change_timeout: float = 120.0
    full_seconds: float = 600.0
    fallback: Literal["keep", "ratio"] = "keep"
    fallback_after: float = 300.0
    sizing: Literal["budget", "demand"] = "budget"
    headroom: float = 0.2
    drain_seconds: float = 300.0
    behavior: Behavior = field(default_factory=Behavior)
    zero_after: float | None = None
