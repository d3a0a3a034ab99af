"""What a balancer gets to see of the simulated system: what metrics would tell, and no more."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.observation import (
    Fresh,
    JobGroup,
    Missing,
    Observation,
    Replicas,
    Signal,
    StageLoad,
)
from disagfusion.scheduling.predictors import ModelPredictor
from disagfusion.simulation.fleet import Fleet, Phase
from disagfusion.simulation.learner import Learner
from disagfusion.simulation.meters import JobRecord, StageMeter
from disagfusion.simulation.operations import Operations
from disagfusion.simulation.world import World

_DETAILED_JOBS = 400
_DETAILED_STARTS = 64


@dataclass(slots=True)
class _Snapshot:
    busy: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    completed: int = 0
    service_seconds: float = 0.0


class Observer:
    """Observes a world; remembers what it has seen before, as rates are differences."""

    def __init__(self, world: World, operations: Operations, learner: Learner | None) -> None:
        self._world = world
        self._operations = operations
        self._learner = learner
        self._shapes = world.shapes
        self._seen = {stage: _Snapshot() for stage in world.stages}
        self._arrived: Counter[str] = Counter()

    def observe(self) -> Observation:
        """Return the system as it is now."""
        world, now = self._world, self._world.clock.now
        arrived = {
            self._shapes[name]: count - self._arrived[name]
            for name, count in world.arrived.items()
            if count > self._arrived[name]
        }
        self._arrived = Counter(world.arrived)
        return Observation(
            replicas={
                stage: {
                    place.pool: _replicas(world.fleet, place, self._operations)
                    for place in world.fleet.places
                    if place.stage == stage
                }
                for stage in world.stages
            },
            jobs=Fresh(self._jobs(now), now),
            arrived=Fresh(arrived, now),
            loads={stage: self._load(stage, meter) for stage, meter in world.meters.items()},
            accelerators={pool: self._operations.usable(pool) for pool in self._operations.broken},
            predictor=ModelPredictor(self._learner.model(now)) if self._learner else None,
        )

    def _load(self, stage: str, meter: StageMeter) -> StageLoad:
        now = self._world.clock.now
        meter.advance(now)
        seen = self._seen[stage]
        busy, starved = meter.busy - seen.busy, meter.starved - seen.starved
        blocked = meter.blocked - seen.blocked
        completed = meter.completed - seen.completed
        seconds = meter.service_seconds - seen.service_seconds
        self._seen[stage] = _Snapshot(
            meter.busy, meter.starved, meter.blocked, meter.completed, meter.service_seconds
        )
        total = busy + starved + blocked

        def share(part: float) -> Signal[float]:
            return Fresh(part / total, now) if total > 0.0 else Missing("no replica was ready")

        return StageLoad(
            busy=share(busy),
            starved=share(starved),
            blocked=share(blocked),
            waiting=Fresh(meter.waiting, now),
            completed=Fresh(completed, now),
            seconds=Fresh(seconds / completed, now) if completed else Missing("no job finished"),
            reporting=meter.serving,
        )

    def _jobs(self, now: float) -> tuple[JobGroup, ...]:
        placed = [job for job in self._world.jobs.values() if job.stage is not None]
        if len(placed) <= _DETAILED_JOBS:
            return tuple(
                self._group(key, [job], now) for job in placed for key in (self._key(job),)
            )
        groups: dict[tuple[int, str, str, bool], list[JobRecord]] = {}
        for job in placed:
            groups.setdefault(self._key(job), []).append(job)
        return tuple(self._group(key, jobs, now) for key, jobs in groups.items())

    def _key(self, job: JobRecord) -> tuple[int, str, str, bool]:
        assert job.stage is not None, "only those that are somewhere"
        replica = self._world.fleet.get(job.replica) if job.running else None
        if replica is None:
            return job.stage, job.shape, "", False
        return job.stage, job.shape, replica.place.pool, replica.phase is Phase.DRAINING

    def _group(
        self, key: tuple[int, str, str, bool], jobs: list[JobRecord], now: float
    ) -> JobGroup:
        stage, shape, pool, draining = key
        count = len(jobs)
        age = now - sum(job.arrived for job in jobs) / count
        elapsed = now - sum(job.started for job in jobs) / count if pool else 0.0
        return JobGroup(stage, self._shapes[shape], count, age, pool, elapsed, draining)


def _replicas(fleet: Fleet, place: Place, operations: Operations) -> Replicas:
    replicas = fleet.at(place)
    phases = [replica.phase for replica in replicas]
    starting = [replica for replica in replicas if replica.phase is Phase.STARTING]
    available = sorted(replica.available_at for replica in starting)
    return Replicas(
        ready=phases.count(Phase.READY),
        starting=len(starting) + operations.waiting_starts.count(place),
        draining=phases.count(Phase.DRAINING),
        starting_since=min((replica.since for replica in starting), default=None),
        available_at=tuple(available[:_DETAILED_STARTS]),
    )
