"""Signals straight from the embedded system's gateway and supervisor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from disagfusion.balancing.control import SupervisorControl
from disagfusion.balancing.instances import Instance, Phase, index_of, instances, shape_of
from disagfusion.balancing.learner import Learner
from disagfusion.errors import DisagfusionError
from disagfusion.local.plan import ProcessStatus
from disagfusion.rpc.calls import translated
from disagfusion.rpc.channel import open_channel
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.observation import (
    Fresh,
    Invalid,
    JobGroup,
    Missing,
    Observation,
    Replicas,
    Signal,
    StageLoad,
    Stale,
)
from disagfusion.scheduling.performance.samples import Sample
from disagfusion.scheduling.ports import SignalSource
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.stage.numbers import stage_of
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import fleet_pb2
from disagfusion.v1.fleet_pb2_grpc import FleetServiceStub

_log = get_logger(__name__)


class EmbeddedSignals(SignalSource):
    """Asks the gateway and the supervisor.

    Args:
        address: The gateway's internal address.
        control: To the supervisor.
        profile: Stages and pools.
        pools: Of every worker.
        learner: Learns from stages that end.
        waiting: Starts that wait for room; the actuator's.
        time_scale: Real seconds for one of the balancer's.
        patience: Real seconds that an answer may take.
        stale_after: Seconds of the balancer's after which an answer is too old even to show.
        gateway: Incarnation of a gateway whose samples are known already, and up to which one.

    Attributes:
        stages: In the pipeline's order.
        instances: The workers, by the last observation.
        processes: What each process does, the workers among them, by the last observation.
    """

    def __init__(
        self,
        address: str,
        control: SupervisorControl,
        profile: Profile,
        pools: Mapping[str, str],
        learner: Learner,
        waiting: Sequence[Place],
        *,
        time_scale: float,
        patience: float,
        stale_after: float,
        gateway: tuple[str, int] = ("", 0),
    ) -> None:
        self._address = address
        self._control = control
        self._profile = profile
        self._pools = pools
        self._learner = learner
        self._waiting = waiting
        self._scale = time_scale
        self._patience = patience
        self._stale_after = stale_after
        self.stages = tuple(profile.stages)
        self.processes: list[ProcessStatus] = []
        self._last: fleet_pb2.GetFleetResponse | None = None
        self._last_at = 0.0
        self._known = gateway
        self.instances: list[Instance] = []

    @property
    def learned_from(self) -> tuple[str, int]:
        """The gateway's incarnation, and up to which of its samples the learner knows them."""
        if self._last is None:
            return self._known
        return self._last.incarnation, self._last.samples_cursor

    async def observe(self, now: float) -> Observation:
        """See `SignalSource`."""
        try:
            self.processes = await self._control.status()
        except DisagfusionError as error:
            _log.warning("the supervisor does not answer", problem=error.message)
        problem = ""
        before, answer = self._last, None
        try:
            answer = await self._ask()
        except DisagfusionError as error:
            problem = error.message
            _log.warning("the gateway does not answer", problem=problem)
        if answer is not None:
            self._last, self._last_at = answer, now
            self._learn(answer, now)
        self.instances = instances(self.processes, self._pools, self._last)
        return Observation(
            replicas=self._replicas(now),
            jobs=self._jobs(answer, problem, now),
            arrived=self._arrived(answer, before, problem, now),
            loads=self._loads(answer, before, problem, now),
            accelerators={name: pool.accelerators for name, pool in self._profile.pools.items()},
            predictor=self._learner.predictor,
        )

    async def _ask(self) -> fleet_pb2.GetFleetResponse:
        request = fleet_pb2.GetFleetRequest()
        request.incarnation, request.samples_cursor = self.learned_from
        if self._last is not None:
            request.arrivals_cursor = self._last.arrivals_cursor
        async with open_channel(self._address) as channel:
            with translated(self._address):
                stub = FleetServiceStub(channel)
                answer: fleet_pb2.GetFleetResponse = await stub.GetFleet(
                    request, timeout=self._patience, wait_for_ready=True
                )
                return answer

    def _learn(self, answer: fleet_pb2.GetFleetResponse, now: float) -> None:
        for one in answer.samples:
            ago = max(0.0, (answer.time.ToNanoseconds() - one.time.ToNanoseconds()) / 1e9)
            try:
                sample = Sample(
                    stage_of(one.stage).value,
                    one.pool,
                    shape_of(one.shape),
                    one.compute_seconds / self._scale,
                    None,
                    now - ago / self._scale,
                )
            except (ValueError, KeyError) as error:
                _log.warning("unusable sample", worker=one.worker, problem=str(error))
                continue
            life = f"{one.worker}/{one.worker_incarnation}"
            self._learner.observe(sample, now=now, incarnation=life)
        self._learner.consider(now)

    def _replicas(self, now: float) -> dict[str, dict[str, Replicas]]:
        waiting = Counter(self._waiting)
        return {
            stage: {
                pool: self._at(Place(stage, pool), waiting[Place(stage, pool)], now)
                for pool in profile.pools
            }
            for stage, profile in self._profile.stages.items()
        }

    def _at(self, place: Place, waiting: int, now: float) -> Replicas:
        phases = Counter(one.phase for one in self.instances if one.place == place)
        since = [
            now - one.seconds / self._scale
            for one in self.instances
            if one.place == place and one.phase is Phase.STARTING
        ]
        load = self._profile.load_seconds(place.stage, place.pool)
        return Replicas(
            ready=phases[Phase.READY],
            starting=phases[Phase.STARTING] + waiting,
            draining=phases[Phase.DRAINING],
            starting_since=min(since, default=None),
            available_at=tuple(sorted(max(now, begun + load) for begun in since)),
        )

    def _absent(self, problem: str, now: float) -> Signal[tuple[JobGroup, ...]]:
        if self._last is None or now - self._last_at > self._stale_after:
            return Missing(problem)
        try:
            return Stale(self._groups(self._last), self._last_at)
        except (ValueError, KeyError) as error:
            return Invalid(str(error))

    def _jobs(
        self, answer: fleet_pb2.GetFleetResponse | None, problem: str, now: float
    ) -> Signal[tuple[JobGroup, ...]]:
        if answer is None:
            return self._absent(problem, now)
        try:
            return Fresh(self._groups(answer), now)
        except (ValueError, KeyError) as error:
            return Invalid(str(error))

    def _groups(self, answer: fleet_pb2.GetFleetResponse) -> tuple[JobGroup, ...]:
        by_name = {one.name: one for one in self.instances}
        groups = []
        for job in answer.jobs:
            worker = by_name.get(job.worker)
            groups.append(
                JobGroup(
                    index_of(job.stage),
                    shape_of(job.shape),
                    1,
                    job.age_seconds / self._scale,
                    worker.place.pool if worker else "",
                    job.elapsed_seconds / self._scale if worker else 0.0,
                    worker is not None and worker.phase is Phase.DRAINING,
                )
            )
        return tuple(groups)

    def _arrived(
        self,
        answer: fleet_pb2.GetFleetResponse | None,
        before: fleet_pb2.GetFleetResponse | None,
        problem: str,
        now: float,
    ) -> Signal[Mapping[Shape, int]]:
        if answer is None:
            return Missing(problem)
        if before is None or not answer.complete:
            return Missing("the gateway is another than before" if before else "nothing to compare")
        counts: Counter[Shape] = Counter()
        try:
            for one in answer.arrived:
                counts[shape_of(one.shape)] += one.count
        except ValueError as error:
            return Invalid(str(error))
        return Fresh(dict(counts), now)

    def _loads(
        self,
        answer: fleet_pb2.GetFleetResponse | None,
        before: fleet_pb2.GetFleetResponse | None,
        problem: str,
        now: float,
    ) -> dict[str, StageLoad]:
        if answer is None or before is None or before.incarnation != answer.incarnation:
            return {stage: _absent_load(problem or "nothing to compare") for stage in self.stages}
        earlier = {one.stage: one for one in before.activities}
        return {
            stage_of(one.stage).value: self._load(one, earlier[one.stage], answer, now)
            for one in answer.activities
            if one.stage in earlier
        }

    def _load(
        self,
        one: fleet_pb2.StageActivity,
        earlier: fleet_pb2.StageActivity,
        answer: fleet_pb2.GetFleetResponse,
        now: float,
    ) -> StageLoad:
        busy = one.busy_seconds - earlier.busy_seconds
        starved = one.starved_seconds - earlier.starved_seconds
        blocked = one.blocked_seconds - earlier.blocked_seconds
        total = busy + starved + blocked
        seconds = [s.compute_seconds / self._scale for s in answer.samples if s.stage == one.stage]
        stage = stage_of(one.stage).value

        def share(part: float) -> Signal[float]:
            return Fresh(part / total, now) if total > 0.0 else Missing("no replica was ready")

        mine = [i for i in self.instances if i.place.stage == stage and i.phase is Phase.READY]
        waiting = sum(job.stage == one.stage and not job.worker for job in answer.jobs)
        return StageLoad(
            busy=share(busy),
            starved=share(starved),
            blocked=share(blocked),
            waiting=Fresh(waiting, now),
            completed=Fresh(one.completed - earlier.completed, now),
            seconds=Fresh(sum(seconds) / len(seconds), now)
            if seconds
            else Missing("no job finished"),
            reporting=len(mine),
        )


def _absent_load(problem: str) -> StageLoad:
    absent = Missing(problem)
    return StageLoad(absent, absent, absent, absent, absent, absent)
