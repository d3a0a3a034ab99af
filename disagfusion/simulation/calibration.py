"""The balancer's parameters, tried again on what happened of late.

DisagFusion (arXiv 2605.25550) names the automatic calibration of scheduling parameters as future
work. Here the jobs of the last while are replayed in the simulator with other parameters, each a
step away from those in use and within bounds; the best set is taken if it would have been clearly
better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from disagfusion.simulation.result import Result
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.workload import Workload

if TYPE_CHECKING:
    from random import Random

_BOUNDS = {
    "tolerance": (0.01, 0.1),
    "passing_tolerance": (0.03, 0.3),
    "forecast_horizon": (60.0, 720.0),
}
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
    """

    settings: BalancerSettings
    message: str


def neighbours(settings: BalancerSettings) -> list[tuple[str, BalancerSettings]]:
    """Return settings that differ by a step in one parameter, with what differs."""
    found = []
    for name, (low, high) in _BOUNDS.items():
        value = getattr(settings, name)
        for changed in (value / _STEP, value * _STEP):
            if low <= changed <= high:
                text = f"{name} {value:g} → {changed:g}"
                found.append((text, replace(settings, **{name: changed})))
    return found


def calibrate(
    trace: Sequence[tuple[float, Shape]],
    initial: Mapping[Place, int],
    profile: Profile,
    load_seconds: Callable[[Place], float],
    settings: BalancerSettings,
    budget: int | None,
    gain: float,
) -> Calibrated:
    """Replay jobs with neighbouring settings, and return the best if it is clearly better.

    The replay begins without the jobs that were unfinished when the first of these came.

    Args:
        trace: (seconds, shape) of jobs as they came.
        initial: The replicas there were when the first of them came.
        profile: What stages cost, as far as is known.
        load_seconds: How long a replica takes to change its place.
        settings: In use.
        budget: Accelerators in all.
        gain: Share by which a set must be better.
    """
    shapes = {shape: f"shape-{i}" for i, shape in enumerate(dict.fromkeys(s for _, s in trace))}
    first = trace[0][0]
    workload = Workload(
        shapes={name: shape for shape, name in shapes.items()},
        trace=tuple((at - first, shapes[shape]) for at, shape in trace),
        budget=budget,
        rebind_seconds={stage: _load(stage, profile, load_seconds) for stage in profile.stages},
    )

    def run(tried: BalancerSettings) -> Result:
        ratio: dict[str, dict[str, int]] = {}
        for place, count in initial.items():
            ratio.setdefault(place.stage, {})[place.pool] = count
        hybrid = Hybrid(profile, ProfilePredictor(profile), load_seconds, tried, budget=budget)
        return Simulation(workload, profile, hybrid, initial=ratio, generator=_no_random).run()

    try:
        base = run(settings)
    except DisagfusionError as error:
        return Calibrated(settings, f"no replay: {error.message}")
    tried = [(_share(run(other), base), text, other) for text, other in neighbours(settings)]
    share, text, best = min(tried, key=lambda one: one[0])
    if share > 1.0 - gain:
        return Calibrated(
            settings, f"{len(trace)} jobs replayed: nothing gains {100 * gain:g} %, {text} most"
        )
    message = f"{len(trace)} jobs replayed: {text}, {100 * (1 - share):.1f} % better"
    return Calibrated(best, message)


def _load(stage: str, profile: Profile, load_seconds: Callable[[Place], float]) -> float:
    return max(load_seconds(Place(stage, pool)) for pool in profile.stages[stage].pools)


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
        trace: Jobs of late.
        fleets: (seconds, place → replicas) at each decision of late.
        calibrated: When that was done last.
    """

    inner: State
    settings: BalancerSettings
    trace: tuple[tuple[float, Shape], ...] = ()
    fleets: tuple[tuple[float, Mapping[Place, int]], ...] = ()
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
        state = self._remember(state, observation, now)
        notes: tuple[str, ...] = ()
        due = now - state.calibrated >= self._calibration.every
        if due and len(state.trace) >= self._calibration.least_jobs:
            found = self._calibrate(state, observation)
            notes = (found.message,)
            state = replace(state, settings=found.settings, calibrated=now)
        inner, decision = self._make(state.settings).decide(state.inner, observation, now)
        return replace(state, inner=inner), replace(decision, notes=notes)

    def _remember(
        self, state: CalibratingState, observation: Observation, now: float
    ) -> CalibratingState:
        trace = list(state.trace)
        if isinstance(observation.arrived, Fresh):
            for shape, count in observation.arrived.value.items():
                # Counted, not timed: spread over the time since the last look.
                step = self.period / count
                trace += [(now - self.period + (i + 0.5) * step, shape) for i in range(count)]
        trace.sort(key=lambda one: one[0])
        begin = now - self._calibration.window
        kept = [one for one in trace if one[0] >= begin][-self._calibration.most_jobs :]
        fleets = [*state.fleets, (now, _committed(observation))]
        since = kept[0][0] if kept else now
        while len(fleets) > 1 and fleets[1][0] <= since:
            del fleets[0]
        return replace(state, trace=tuple(kept), fleets=tuple(fleets))

    def _calibrate(self, state: CalibratingState, observation: Observation) -> Calibrated:
        profile = self._profile
        if isinstance(observation.predictor, ModelPredictor):
            profile = observation.predictor.model.to_profile()
        return calibrate(
            state.trace,
            state.fleets[0][1],
            profile,
            self._load_seconds,
            state.settings,
            self._budget,
            self._calibration.gain,
        )


def _committed(observation: Observation) -> dict[Place, int]:
    return {
        Place(stage, pool): counts.committed
        for stage, pools in observation.replicas.items()
        for pool, counts in pools.items()
    }
