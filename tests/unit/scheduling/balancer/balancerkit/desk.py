"""A balancer and what it observes, in few words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.state import State
from disagfusion.scheduling.decision import Decision, Place
from disagfusion.scheduling.document import validate
from disagfusion.scheduling.observation import (
    Fresh,
    JobGroup,
    Missing,
    Observation,
    Replicas,
    Signal,
    StageLoad,
)
from disagfusion.scheduling.predictors import ProfilePredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape

STAGES = ("encoder", "dit", "decoder")
ONE = Shape()
E, T, D = (Place(stage, "a") for stage in STAGES)


def make_profile(**stages: dict[str, Any]) -> Profile:
    """Return a profile with one pool of eight; an encoder, a DiT and a decoder of 1, 10, 2 s."""
    seconds = {"encoder": 1.0, "dit": 10.0, "decoder": 2.0}
    fields = {
        stage: {"pools": {"a": {"seconds": value}}, **stages.get(stage, {})}
        for stage, value in seconds.items()
    }
    return validate(Profile, {"pools": {"a": {"accelerators": 8}}, "stages": fields}, name="p")


class Desk:
    """Calls a balancer every ten seconds; replicas and jobs are what the test says."""

    def __init__(
        self,
        profile: Profile | None = None,
        *,
        fallback_ratio: dict[Place, int] | None = None,
        budget: int | None = None,
        **settings: Any,
    ) -> None:
        self.profile = profile or make_profile()
        self.balancer = Hybrid(
            self.profile,
            ProfilePredictor(self.profile),
            lambda place: 5.0,
            BalancerSettings(**settings),
            budget=budget,
            fallback=fallback_ratio,
        )
        self.state: State = self.balancer.initial()
        self.now = 0.0
        self.replicas = {E: Replicas(1), T: Replicas(5), D: Replicas(2)}
        self.jobs: Signal[tuple[JobGroup, ...]] = Fresh((), 0.0)
        self.arrived: Signal[Any] = Fresh({}, 0.0)
        self.accelerators = 8
        self.loads = {stage: StageLoad() for stage in STAGES}

    def observation(self) -> Observation:
        return Observation(
            {place.stage: {place.pool: count} for place, count in self.replicas.items()},
            self.jobs,
            self.arrived,
            self.loads,
            {"a": self.accelerators},
        )

    def decide(self, seconds: float = 10.0) -> Decision:
        """Let time pass and ask for a decision."""
        self.now += seconds
        self.state, decision = self.balancer.decide(self.state, self.observation(), self.now)
        return decision

    def wait_for(self, stage: int, count: int, age: float = 0.0) -> None:
        """Let jobs wait for a stage."""
        self.jobs = Fresh(tuple(JobGroup(stage, ONE, 1, age) for _ in range(count)), self.now)

    def lose_signals(self) -> None:
        """Let nobody know anything about jobs."""
        self.jobs = self.arrived = Missing("no answer")

    def set(self, place: Place, **fields: Any) -> None:
        """Change the replicas at a place."""
        self.replicas[place] = replace(self.replicas[place], **fields)

    def carry_out(self, decision: Decision) -> None:
        """Let a decision come true at once."""
        for move in decision.moves:
            if move.cancel:
                assert move.source is not None
                starting = self.replicas[move.source].starting
                self.set(move.source, starting=starting - move.count)
                continue
            for place, by in ((move.source, -move.count), (move.target, move.count)):
                if place is not None:
                    self.set(place, ready=self.replicas[place].ready + by)
