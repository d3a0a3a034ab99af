"""The balancer's parameters, tried again on what happened of late.

DisagFusion (arXiv 2605.25550) names the automatic calibration of scheduling parameters as future
work. Here the jobs of the last while are replayed in the simulator with other parameters, each a
step away from those in use and within bounds; the best set is taken if it would have been clearly
better.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from disagfusion.errors import DisagfusionError
from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.state import State
from disagfusion.scheduling.decision import Decision, Place
from disagfusion.scheduling.observation import Fresh, Observation
from disagfusion.scheduling.predictors import ModelPredictor, ProfilePredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.checks import fitting
from disagfusion.simulation.result import Result
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.services import Services
from disagfusion.simulation.workload import Workload

if TYPE_CHECKING:
    from random import Random

BOUNDS = {
    "tolerance": (0.01, 0.1),
    "passing_tolerance": (0.03, 0.3),
    "forecast_horizon": (60.0, 720.0),
}
"""Parameters that are calibrated, with the least and the greatest value that is tried."""

_STEP = 2.0


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """When to calibrate, and what is clear; seconds where nothing else is said.

    Attributes:
        every: Between two calibrations.
        window: Jobs of so long are replayed.
        least_jobs: Without as many nothing is tried.
        most_jobs: Of more, the last ones are taken.
        gain: Share by which a set must be better to be taken.
    """

    every: float = 600.0
    window: float = 1200.0
    least_jobs: int = 40
    most_jobs: int = 400
    gain: float = 0.05


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What came of a calibration.

    Attributes:
        settings: The better ones, or those in use.
        message: What was found, for the log.
        gain: Share by which they are better; 0 where nothing was taken.
    """

    settings: BalancerSettings
    message: str
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class Trace:
    """What came of late, and which replicas there were; never changed, only replaced.

    Attributes:
        jobs: (seconds, shape), oldest first.
        fleets: (seconds, place → replicas) at each look of late.
    """

    jobs: tuple[tuple[float, Shape], ...] = ()
    fleets: tuple[tuple[float, Mapping[Place, int]], ...] = ()

    @property
    def initial(self) -> Mapping[Place, int]:
        """The replicas there were when the first of the jobs came."""
        return self.fleets[0][1]

    def remember(
        self, observation: Observation, now: float, period: float, calibration: CalibrationSettings
    ) -> Trace:
        """Return the trace with what an observation adds, and without what is too old.

        Args:
            observation: The system now. Where it does not say what came, the trace begins anew:
                a gap would be replayed as a lull.
            now: Seconds.
            period: Seconds between two looks, for the first one.
            calibration: How much is kept.
        """
        jobs: list[tuple[float, Shape]] = []
        if isinstance(observation.arrived, Fresh):
            before = self.fleets[-1][0] if self.fleets else now - period
            jobs = [*self.jobs, *_spread(observation.arrived.value, before, now)]
        jobs.sort(key=lambda one: one[0])
        begin = now - calibration.window
        kept = [one for one in jobs if one[0] >= begin][-calibration.most_jobs :]
        fleets = [*self.fleets, (now, _committed(observation))]
        since = kept[0][0] if kept else now
        while len(fleets) > 1 and fleets[1][0] <= since:
            del fleets[0]
        return Trace(tuple(kept), tuple(fleets))


def _spread(counts: Mapping[Shape, int], begin: float, end: float) -> Iterator[tuple[float, Shape]]:
    """Return jobs that were counted, not timed, at times between two looks."""
    for shape, count in counts.items():
        step = (end - begin) / count if count else 0.0
        yield from ((begin + (i + 0.5) * step, shape) for i in range(count))


def neighbours(
    settings: BalancerSettings, fixed: Collection[str] = ()
) -> list[tuple[str, BalancerSettings]]:
    """Return settings that differ by a step in one parameter, with what differs.

    Args:
        settings: In use.
        fixed: Parameters that stay as they are.
    """
    found = []
    for name, (low, high) in BOUNDS.items():
        value = getattr(settings, name)
        if name in fixed:
            continue
        for changed in (value / _STEP, value * _STEP):
            if low <= changed <= high:
                text = f"{name} {value:g} → {changed:g}"
                found.append((text, replace(settings, **{name: changed})))
    return found


def calibrate(
    trace: Sequence[tuple[float, Shape]],
    initial: Mapping[Place, int],
    profile: Profile,
    settings: BalancerSettings,
    budget: int | None,
    gain: float,
    *,
    rebind_seconds: Mapping[str, float] | None = None,
    fixed: Collection[str] = (),
) -> Calibrated:
    """Replay jobs with neighbouring settings, and return the best if it is clearly better.

    The replay begins without the jobs that were unfinished when the first of these came.

    Args:
        trace: (seconds, shape) of jobs as they came.
        initial: The replicas there were when the first of them came.
        profile: What stages cost, as far as is known.
        settings: In use.
        budget: Accelerators in all.
        gain: Share by which a set must be better.
        rebind_seconds: By stage, how long a replica takes to change to it; by default what the
            profile says of weights and bandwidths.
        fixed: Parameters that stay as they are.
    """
    candidates = neighbours(settings, fixed)
    if not candidates:
        return Calibrated(settings, "no parameter may be changed")
    shapes = {shape: f"shape-{i}" for i, shape in enumerate(dict.fromkeys(s for _, s in trace))}
    first = trace[0][0]
    workload = Workload(
        shapes={name: shape for shape, name in shapes.items()},
        trace=tuple((at - first, shapes[shape]) for at, shape in trace),
        budget=budget,
        rebind_seconds=None if rebind_seconds is None else dict(rebind_seconds),
    )
    services = Services(profile, workload)
    ratio: dict[str, dict[str, int]] = {}
    for place, count in initial.items():
        ratio.setdefault(place.stage, {})[place.pool] = count

    def run(tried: BalancerSettings) -> Result:
        fitted = fitting(workload, profile, ratio)
        hybrid = Hybrid(
            fitted,
            ProfilePredictor(fitted),
            services.rebind_seconds,
            tried,
            budget=budget,
            loads_ahead=services.loads_ahead,
        )
        return Simulation(workload, fitted, hybrid, initial=ratio, generator=_no_random).run()

    try:
        base = run(settings)
    except DisagfusionError as error:
        return Calibrated(settings, f"no replay: {error.message}")
    tried = []
    for text, other in candidates:
        # One with which the jobs never end is none to be taken.
        with contextlib.suppress(DisagfusionError):
            tried.append((_share(run(other), base), text, other))
    share, text, best = min(tried, key=lambda one: one[0], default=(math.inf, "", settings))
    if share > 1.0 - gain:
        most = f", {text} most" if text else ""
        return Calibrated(
            settings, f"{len(trace)} jobs replayed: nothing gains {100 * gain:g} %{most}"
        )
    message = f"{len(trace)} jobs replayed: {text}, {100 * (1 - share):.1f} % better"
    return Calibrated(best, message, 1.0 - share)


def _share(result: Result, base: Result) -> float:
    pairs = [
        (result.last_finish_seconds, base.last_finish_seconds),
        (result.latency_seconds["mean"], base.latency_seconds["mean"]),
        (result.latency_seconds["p95"], base.latency_seconds["p95"]),
    ]
    return math.fsum(one / other if other else 1.0 for one, other in pairs) / len(pairs)


def _no_random(stream: int) -> Random:
    raise AssertionError(f"a trace needs no random numbers, nor does stream {stream}")


@dataclass(frozen=True, slots=True)
class CalibratingState:
    """What a balancer that calibrates itself remembers.

    Attributes:
        inner: Of the balancer.
        settings: In use.
        trace: Jobs and replicas of late.
        calibrated: When that was done last.
    """

    inner: State
    settings: BalancerSettings
    trace: Trace = field(default_factory=Trace)
    calibrated: float = 0.0


class Calibrating:
    """The hybrid rule, with parameters that it tries again from time to time.

    Args:
        make: Makes the rule with settings.
        profile: What stages cost, where nothing was learned.
        load_seconds: How long a replica takes to change its place.
        budget: Accelerators in all.
        settings: To begin with.
        calibration: When to calibrate.
    """

    name = "hybrid+calibration"

    def __init__(
        self,
        make: Callable[[BalancerSettings], Hybrid],
        profile: Profile,
        load_seconds: Callable[[Place], float],
        budget: int | None,
        settings: BalancerSettings,
        calibration: CalibrationSettings | None = None,
    ) -> None:
        self._make = make
        self._profile = profile
        self._load_seconds = load_seconds
        self._budget = budget
        self._settings = settings
        self._calibration = calibration or CalibrationSettings()

    @property
    def period(self) -> float:
        """Seconds between two decisions."""
        return self._settings.period

    def initial(self) -> CalibratingState:
        """Return the state to begin with."""
        return CalibratingState(self._make(self._settings).initial(), self._settings)

    def decide(
        self, state: CalibratingState, observation: Observation, now: float
    ) -> tuple[CalibratingState, Decision]:
        """Decide what should be done; see `Balancer`."""
        trace = state.trace.remember(observation, now, self.period, self._calibration)
        state = replace(state, trace=trace)
        notes: tuple[str, ...] = ()
        due = now - state.calibrated >= self._calibration.every
        if due and len(state.trace.jobs) >= self._calibration.least_jobs:
            found = self._calibrate(state, observation)
            notes = (found.message,)
            state = replace(state, settings=found.settings, calibrated=now)
        inner, decision = self._make(state.settings).decide(state.inner, observation, now)
        return replace(state, inner=inner), replace(decision, notes=notes)

    def _calibrate(self, state: CalibratingState, observation: Observation) -> Calibrated:
        profile = self._profile
        if isinstance(observation.predictor, ModelPredictor):
            profile = observation.predictor.model.to_profile()
        return calibrate(
            state.trace.jobs,
            state.trace.initial,
            profile,
            state.settings,
            self._budget,
            self._calibration.gain,
            rebind_seconds={
                stage: max(self._load_seconds(Place(stage, pool)) for pool in costs.pools)
                for stage, costs in profile.stages.items()
            },
        )


def _committed(observation: Observation) -> dict[Place, int]:
    return {
        Place(stage, pool): counts.committed
        for stage, pools in observation.replicas.items()
        for pool, counts in pools.items()
    }
