"""What is known of how long a pipeline's stages take: its profile, and what its jobs teach."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from disagfusion.balancing.learner import Learner
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.performance.model import PairSummary, PerformanceModel
from disagfusion.scheduling.performance.samples import Sample
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.predictors import ModelPredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import WeightedShape
from disagfusion.v1 import fleet_pb2
from disagfusion_operator.api.base import STAGES, number
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.scaling.behavior import time_scale
from disagfusion_operator.scaling.bounds import Bounds
from disagfusion_operator.scaling.fleet import Pod
from disagfusion_operator.scaling.gateways import mix_of, samples_of
from disagfusion_operator.scaling.profiles import bounded, guessed

FIRST_JOBS = 3
"""So many samples of every stage are the first profile of a pipeline that came without one."""
TYPICAL = WeightedShape(height=1024, width=1024, num_inference_steps=28, sequence_length=128)
"""What jobs are taken to be like before there were any."""
_STARTS = 5
_NEVER = 1e-12
_LOAD_SECONDS = 30.0
"""From a pod's creation until it takes work, before one was seen."""


class Knowledge:
    """Of one pipeline.

    Args:
        given: The profile that people wrote; None: there is none.
        gate: Lets one fit at a time run in the process.
    """

    def __init__(self, given: Profile | None, gate: AbstractAsyncContextManager[object]) -> None:
        self.given = given
        self._gate = gate
        self._first: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self._early: list[tuple[Sample, str]] = []
        self._learner: Learner | None = None
        self._starts: dict[Place, deque[float]] = {}
        self._changes: dict[Place, deque[float]] = {}
        self._started: set[str] = set()
        self._rebased: tuple[PerformanceModel, Profile, ModelPredictor] | None = None
        self.mix: tuple[WeightedShape, ...] = (TYPICAL,)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Stages of which nothing is known yet: no decision can rest on a guess."""
        if self.given is not None:
            return ()
        return tuple(stage for stage, seen in self._first.items() if len(seen) < FIRST_JOBS)

    def profile(self, spec: Spec, bounds: Bounds) -> Profile | None:
        """Return the profile; None: nothing is known yet.

        Raises:
            InvalidArgumentError: What people wrote does not fit the specification.
        """
        if self.given is not None:
            return bounded(spec, self.given, bounds)
        if self.lacking:
            return None
        seconds = {
            stage: statistics.median(seen[:FIRST_JOBS]) for stage, seen in self._first.items()
        }
        return guessed(spec, seconds, bounds)

    def predictor(self, profile: Profile, now: float) -> ModelPredictor:
        """Return what is known by now, within a profile of the moment.

        Args:
            profile: As `profile` returned it.
            now: Seconds, by the clock of `teach`.
        """
        if self._learner is None:
            self._learner = Learner(profile, gate=self._gate)
            for sample, life in self._early:
                self._learner.observe(sample, now=now, incarnation=life)
            self._early.clear()
        model = self._learner.model
        if (
            self._rebased is None
            or self._rebased[0] is not model
            or self._rebased[1] is not profile
        ):
            current = PerformanceModel(
                profile, model.pairs, model.corrections, version=model.version
            ).as_of(now, PerformanceSettings().model_age)
            self._rebased = (model, profile, ModelPredictor(current))
        return self._rebased[2]

    def summary(self, now: float) -> list[PairSummary]:
        """Return the numbers of every stage and pool of the model."""
        return [] if self._learner is None else self._learner.summary(now)

    def teach(self, answers: Sequence[fleet_pb2.GetFleetResponse], spec: Spec, now: float) -> None:
        """Take note of what the gateways tell.

        Args:
            answers: With the samples since the last ones.
            spec: The pipeline's.
            now: Seconds of the balancer's clock.
        """
        self.mix = mix_of(answers) or self.mix
        scale = time_scale(spec)
        for sample, life in (one for answer in answers for one in samples_of(answer, now, scale)):
            if self._learner is not None:
                self._learner.observe(sample, now=now, incarnation=life)
                continue
            self._early.append((sample, life))
            pool = spec.pools.get(sample.pool)
            if pool is not None and sample.stage in self._first:
                self._first[sample.stage].append(sample.seconds * float(number(pool.speed)))
        if self._learner is not None:
            self._learner.consider(now)

    def watch(self, pod: Pod) -> None:
        """Take note of how long a pod took to start."""
        if pod.uid in self._started or pod.ready_at is None:
            return
        if pod.changed_at is not None:
            return  # it became ready as something else
        self._started.add(pod.uid)
        seen = self._starts.setdefault(pod.place, deque(maxlen=_STARTS))
        seen.append(max(0.0, pod.ready_at - pod.created))

    def keep(self, uids: set[str]) -> None:
        """Remember nothing of pods that are gone."""
        self._started &= uids

    def start_seconds(self, place: Place, profile: Profile | None, scale: float) -> float:
        """Return how many real seconds a pod takes from its creation until it takes work.

        Args:
            place: Where.
            profile: What people measured.
            scale: Real seconds for one of the profile's.
        """
        seen = self._starts.get(place)
        if seen:
            return statistics.median(seen)
        alike = [
            one for at, found in self._starts.items() if at.stage == place.stage for one in found
        ]
        if alike:
            return statistics.median(alike)
        if profile is None or place.pool not in profile.stages[place.stage].pools:
            return _LOAD_SECONDS
        return profile.load_seconds(place.stage, place.pool) * scale or _LOAD_SECONDS

    def changed(self, place: Place, seconds: float) -> None:
        """Take note of how long a pod that worked took to change its stage in place."""
        self._changes.setdefault(place, deque(maxlen=_STARTS)).append(seconds)

    def change_seconds(self, place: Place, profile: Profile | None, scale: float) -> float:
        """Return how many real seconds a pod takes from a change of its stage until it takes work.

        Args:
            place: Which is to be its.
            profile: What people measured.
            scale: Real seconds for one of the profile's.
        """
        if seen := self._changes.get(place):
            return statistics.median(seen)
        if profile is None or place.pool not in profile.stages[place.stage].pools:
            return _LOAD_SECONDS
        return profile.load_seconds(place.stage, place.pool) * scale or _LOAD_SECONDS

    def speed(self, profile: Profile, place: Place, now: float) -> float:
        """Return the jobs per real second of a replica, over the shapes that fit there.

        Args:
            profile: As `profile` returned it.
            place: Where.
            now: Seconds of the balancer's clock.
        """
        predictor = self.predictor(profile, now)
        done = weights = 0.0
        for shape in self.mix:
            seconds = predictor.seconds(place.stage, place.pool, shape)
            if seconds < math.inf:
                done, weights = done + shape.weight * seconds, weights + shape.weight
        return weights / done if done > 0.0 else _NEVER

    async def aclose(self) -> None:
        """End a fit that goes on."""
        if self._learner is not None:
            await self._learner.aclose()
