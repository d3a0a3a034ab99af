"""One simulation: a workload, a profile and a rule, until the last job has ended."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from disagfusion.errors import FailedPreconditionError
from disagfusion.scheduling.decision import Balancer
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.arrivals import Arrival, draw_arrivals
from disagfusion.simulation.checks import check
from disagfusion.simulation.learner import Learner
from disagfusion.simulation.observe import Observer
from disagfusion.simulation.operations import Operations
from disagfusion.simulation.result import Recording, Result, Sample, summarize_latencies
from disagfusion.simulation.workload import Workload
from disagfusion.simulation.world import World

if TYPE_CHECKING:
    from random import Random

S = TypeVar("S")

_STANDSTILL_DECISIONS = 100
_LOADS = 4
_COLLECTION = 200_000


class Simulation(Generic[S]):
    """A world and the rule that changes it.

    Args:
        workload: The jobs and the fleet.
        profile: What stages cost.
        balancer: The rule.
        initial: Stage → pool → replicas at the start.
        generator: Gives the random numbers of each stream of jobs, by index.
        truth: What stages really cost; by default what the profile says.
        learn: Whether the balancer is given what was learned from jobs that ended.
        until: Jobs that come later than this are left out.

    Raises:
        InvalidArgumentError: The three do not fit together.
    """

    def __init__(
        self,
        workload: Workload,
        profile: Profile,
        balancer: Balancer[S],
        *,
        initial: dict[str, dict[str, int]],
        generator: Callable[[int], Random],
        truth: Profile | None = None,
        learn: bool = False,
        until: float | None = None,
    ) -> None:
        check(workload, profile, initial)
        arrivals = draw_arrivals(workload, len(profile.stages), generator)
        if until is not None:
            arrivals = _before(until, arrivals)
        self._profile = profile
        self._balancer = balancer
        self._state = balancer.initial()
        self._recording = Recording(workload.measure)
        overhead = (truth or profile).overhead_seconds
        self._world = World(
            truth or profile,
            workload,
            arrivals,
            lambda job, at: self._recording.finish(job, at + overhead),
        )
        self._operations = Operations(self._world, profile, workload)
        learner = Learner(profile) if learn else None
        if learner is not None:
            self._world.on_served = learner.observe
        self._observer = Observer(self._world, self._operations, learner)
        self._operations.place(initial)
        self._exceeded = 0
        self._idle_decisions = 0
        self._advanced = 0
        self._advanced_at = 0.0
        loads = [self._world.services.rebind_seconds(p) for p in self._world.fleet.places]
        # Replicas that only come and go do not help: one may have to load, then another.
        self._patience = _STANDSTILL_DECISIONS * balancer.period + _LOADS * max(loads)

    def run(self) -> Result:
        """Let time pass until every job has ended.

        Raises:
            FailedPreconditionError: Nothing can happen any more, and jobs are left.
        """
        thresholds = gc.get_threshold()
        # Events and actions have no cycles; to look for some takes an eighth of the time.
        gc.set_threshold(_COLLECTION, *thresholds[1:])
        try:
            self._let_time_pass()
        finally:
            gc.set_threshold(*thresholds)
        return self._result()

    def _let_time_pass(self) -> None:
        world, budget = self._world, self._operations.budget
        world.clock.after(self._balancer.period, self._decide)
        while not world.done:
            world.clock.step()
            self._exceeded += world.fleet.used > budget
            if self._idle_decisions > _STANDSTILL_DECISIONS or self._waited > self._patience:
                raise self._standstill()

    def _standstill(self) -> FailedPreconditionError:
        meters = self._world.meters
        empty = [stage for stage, meter in meters.items() if not meter.serving]
        if empty:
            why = f"no replica is left of {', '.join(empty)}"
        else:
            queues = [f"{meter.waiting} for {stage}" for stage, meter in meters.items()]
            why = f"nothing happens any more; there wait {', '.join(queues)}"
        return FailedPreconditionError(
            f"{len(self._world.jobs)} jobs never end: {why}", reason="STANDSTILL"
        )

    def _decide(self) -> None:
        world = self._world
        if world.done:
            return
        observation = self._observer.observe()
        self._state, decision = self._balancer.decide(self._state, observation, world.clock.now)
        self._recording.samples.append(
            Sample(
                world.clock.now,
                {stage: meter.serving for stage, meter in world.meters.items()},
                {stage: meter.waiting for stage, meter in world.meters.items()},
                {stage: meter.running for stage, meter in world.meters.items()},
            )
        )
        last = self._recording.decisions[-1] if self._recording.decisions else None
        news = decision.moves or decision.notes
        if news or last is None or last.reason is not decision.reason:
            self._recording.decisions.append(decision)
        for move in decision.moves:
            self._operations.begin(move)
        self._look_for_standstill()
        world.clock.after(self._balancer.period, self._decide)

    @property
    def _waited(self) -> float:
        """Seconds in which no job was served though some are there."""
        return self._world.clock.now - self._advanced_at

    def _look_for_standstill(self) -> None:
        world, helped = self._world, bool(self._operations.repairs)
        still = world.still and not helped
        self._idle_decisions = self._idle_decisions + 1 if still else 0
        meters = world.meters.values()
        advanced = world.submitted + sum(meter.completed for meter in meters)
        running = any(meter.running for meter in meters)
        if advanced != self._advanced or running or world.coming or helped:
            self._advanced, self._advanced_at = advanced, world.clock.now

    def _result(self) -> Result:
        world, recording = self._world, self._recording
        held = world.fleet.held_seconds(world.clock.now)
        accelerators = {place: s * world.fleet.accelerators(place) for place, s in held.items()}
        replica_seconds = dict.fromkeys(world.stages, 0.0)
        for place, seconds in held.items():
            replica_seconds[place.stage] += seconds
        return Result(
            policy=self._balancer.name,
            submitted=world.submitted,
            completed=len(recording.finishes),
            lost=world.lost,
            last_finish_seconds=max(recording.finishes, default=0.0),
            latency_seconds=summarize_latencies(recording.latencies),
            attainment=recording.attained / recording.judged if recording.judged else None,
            replica_seconds=replica_seconds,
            accelerator_seconds=sum(accelerators.values()),
            cost=sum(
                seconds / 3600 * self._profile.pools[place.pool].cost_per_hour
                for place, seconds in accelerators.items()
            ),
            moves=self._operations.moves,
            budget_exceeded=self._exceeded,
            most_accelerators=world.fleet.most_used,
            finished_in_windows=tuple(recording.windows),
            samples=tuple(recording.samples),
            decisions=tuple(recording.decisions),
            finishes=recording.latency_finishes,
            latencies=recording.latencies,
        )


def _before(until: float, arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
    for arrival in arrivals:
        if arrival.at > until:
            return
        yield arrival
