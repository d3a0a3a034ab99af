"""The balancer of one pipeline: its rule, and what it is told of load and replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from disagfusion.balancing.scraped import in_seconds_of
from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.state import State
from disagfusion.scheduling.decision import Decision, Place, Reason
from disagfusion.scheduling.observation import (
    Fresh,
    JobGroup,
    Observation,
    Predictor,
    Replicas,
    Signal,
)
from disagfusion.scheduling.predictors import ProfilePredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.prometheus.readings import Readings
from disagfusion.scheduling.shapes import WeightedShape
from disagfusion.signals.prometheus import Observer
from disagfusion_operator.api.base import STAGES


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rule is made of.

    Attributes:
        profile: Stages and pools that it balances.
        settings: How it behaves.
        budget: Accelerators that it may use.
    """

    profile: Profile
    settings: BalancerSettings
    budget: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a decision rests on, by the balancer's clock.

    Attributes:
        observation: Of the system.
        jobs: Stage → unfinished jobs that have to pass it; empty where that is not known.
        rate: Jobs per second that come; None where that is not known.
    """

    observation: Observation
    jobs: Mapping[str, int]
    rate: float | None


class Decider:
    """Decides for one pipeline; knows time only by what it is told.

    Args:
        scale: Real seconds for one of the balancer's clock.
    """

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._observer = Observer(STAGES)
        self._terms: Terms | None = None
        self._rule: Hybrid | None = None
        self._starts: dict[Place, float] = {}
        self.state = State()

    @property
    def name(self) -> str:
        """Of the rule."""
        return "" if self._rule is None else self._rule.name

    def use(self, terms: Terms, starts: Mapping[Place, float]) -> None:
        """Decide by other terms from now on; what is remembered stays as far as it fits.

        Args:
            terms: Of the rule.
            starts: Seconds from a pod's creation until it takes work, by place.
        """
        self._starts = dict(starts)
        if terms == self._terms:
            return
        self._terms = terms
        profile = terms.profile
        self._rule = Hybrid(
            profile,
            ProfilePredictor(profile),
            lambda place: self._starts.get(place, 0.0),
            terms.settings,
            budget=terms.budget,
        )
        self.state = _fitting(self.state, profile)

    def see(
        self,
        readings: Readings,
        mix: tuple[WeightedShape, ...],
        replicas: Mapping[Place, Replicas],
        accelerators: Mapping[str, int],
        predictor: Predictor | None,
        now: float,
    ) -> Seen:
        """Return what a decision is to rest on.

        Args:
            readings: Of Prometheus, by the real clock that was at zero when the balancer's was.
            mix: Shapes of jobs.
            replicas: By place.
            accelerators: Pool → those that may be used.
            predictor: What is known of how long stages take.
            now: Seconds of the balancer's clock.
        """
        assert self._terms is not None, "terms come first"
        profile = self._terms.profile
        self._observer.mix = mix
        seen = self._observer.observe(
            readings,
            now * self._scale,
            accelerators,
            replicas={
                stage: {pool: replicas.get(Place(stage, pool), Replicas()) for pool in what.pools}
                for stage, what in profile.stages.items()
            },
            predictor=predictor,
        )
        seen = in_seconds_of(self._scale, seen)
        seen = replace(seen, jobs=_known(seen.jobs, profile))
        arrivals = readings.arrivals
        return Seen(
            seen,
            _passing(seen.jobs),
            arrivals.value if isinstance(arrivals, Fresh) else None,
        )

    def decide(self, seen: Seen, now: float, held: str = "") -> Decision:
        """Decide; may take some tenths of a second.

        Args:
            seen: What it rests on.
            now: Seconds of the balancer's clock.
            held: Why nothing may change; empty where it may.
        """
        assert self._rule is not None, "terms come first"
        assert self._terms is not None, "terms come first"
        rule = self._rule
        if held:
            paused = replace(self._terms.settings, paused=True)
            profile = self._terms.profile
            rule = Hybrid(profile, ProfilePredictor(profile), lambda place: 0.0, paused, budget=0)
        before = self.state
        self.state, decision = rule.decide(before, seen.observation, now)
        if decision.reason is Reason.PAUSED:
            # Changes that come to no end meanwhile are given up afterwards, not forgotten.
            kept = tuple(one for one in before.pending if not one.finished(seen.observation, now))
            self.state = replace(self.state, pending=kept)
            decision = replace(decision, message=held)
        return decision

    def forget_changes(self) -> None:
        """Take what was decided last for advice that nobody carries out."""
        self.state = replace(self.state, pending=(), asleep=())


def _known(jobs: Signal[tuple[JobGroup, ...]], profile: Profile) -> Signal[tuple[JobGroup, ...]]:
    """Leave out jobs that run where the rule has nothing to decide: they are done there."""
    if not isinstance(jobs, Fresh):
        return jobs
    stages = list(profile.stages.values())
    return Fresh(
        tuple(one for one in jobs.value if not one.pool or one.pool in stages[one.stage].pools),
        jobs.at,
    )


def _passing(jobs: Signal[tuple[JobGroup, ...]]) -> dict[str, int]:
    if not isinstance(jobs, Fresh):
        return {}
    return {
        stage: sum(one.count for one in jobs.value if one.stage <= index)
        for index, stage in enumerate(STAGES)
    }


def _fitting(state: State, profile: Profile) -> State:
    """Return what is remembered of places that there still are."""

    def there(place: Place | None) -> bool:
        return place is None or (
            place.stage in profile.stages and place.pool in profile.stages[place.stage].pools
        )

    return replace(
        state,
        pending=tuple(
            one for one in state.pending if there(one.move.source) and there(one.move.target)
        ),
        full=tuple((pool, until) for pool, until in state.full if pool in profile.pools),
        asleep=tuple((place, count) for place, count in state.asleep if there(place)),
    )


def applied(desired: Mapping[Place, int], decision: Decision) -> dict[Place, int]:
    """Return the replicas there should be after a decision."""
    counts = dict(desired)
    for move in decision.moves:
        if move.source is not None:
            counts[move.source] = max(0, counts.get(move.source, 0) - move.count)
        if move.target is not None:
            counts[move.target] = counts.get(move.target, 0) + move.count
    return counts


def without(profile: Profile, fixed: Mapping[Place, int]) -> Profile:
    """Return a profile in which nothing is left to decide for places that others scale.

    A stage with other pools keeps those, and its bounds are less by what others see to; one that
    has no other keeps its number.

    Args:
        profile: Of the pipeline.
        fixed: Place → replicas.
    """
    stages = {}
    for stage, what in profile.stages.items():
        taken = {place.pool: count for place, count in fixed.items() if place.stage == stage}
        others = {pool: costs for pool, costs in what.pools.items() if pool not in taken}
        count = sum(taken.values())
        if not taken:
            stages[stage] = what
        elif not others:
            stages[stage] = what.model_copy(update={"min": count, "max": count})
        else:
            most = None if what.max is None else max(0, what.max - count)
            least = min(max(0, what.min - count), 10**9 if most is None else most)
            stages[stage] = what.model_copy(update={"min": least, "max": most, "pools": others})
    return profile.model_copy(update={"stages": stages})
