"""A small cluster whose pipelines an operator balances, with what it is told of their load."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Mapping

from disagfusion_operator.api.base import STAGES
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.scaling.controller import Scaling
from disagfusion_operator.scaling.gateways import Door, Gateways
from disagfusion_operator.scaling.load import Answers, Load, Source
from disagfusion_operator.scaling.profiles import read_profile
from disagfusion_operator.scaling.report import Report
from disagfusion_operator.scaling.view import ClusterView, Key, PipelineView
from disagfusion_operator.scaling.workers import Workers

from disagfusion.errors import FailedPreconditionError, UnavailableError
from disagfusion.rpc.tls import TlsSettings
from disagfusion.scheduling.observation import Missing
from disagfusion.scheduling.prometheus.answers import Answer, Outcome
from disagfusion.scheduling.prometheus.queries import QUERIES
from disagfusion.v1 import fleet_pb2

from .members import Member
from .small_cluster import SmallCluster


class World(SmallCluster):
    """A small cluster and an operator in it, whose steps come with time.

    Attributes:
        autoscalers: Those of other people.
        prometheus: Whether Prometheus answers.
        told: What gateways were told, with their addresses.
        deaf: Addresses of gateways that do not answer.
        stubborn: Pods whose workers do not change their stage.
        deaf_workers: Pods whose workers cannot be reached.
        fleets: Address → what its gateway says of its workers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.autoscalers: list[Object] = []
        self.prometheus = True
        self.told: list[tuple[str, fleet_pb2.FleetDecision]] = []
        self.deaf: set[str] = set()
        self.stubborn: set[str] = set()
        self.deaf_workers: set[str] = set()
        self.fleets: dict[str, fleet_pb2.GetFleetResponse] = {}

    def view(self, member: Member) -> PipelineView:
        source = member.spec.scaling.profile
        profile = None
        if source is not None and source.inline is not None:
            profile = read_profile(source.inline)
        return PipelineView(
            key=member.key,
            uid=member.uid,
            generation=member.generation,
            annotations=dict(member.annotations),
            spec=member.spec,
            profile=profile,
            deployments=copy.deepcopy(member.deployments),
            pods=[pod.manifest(self.now) for pod in self.pods.values() if pod.key == member.key],
            autoscalers=self.autoscalers,
            prometheus_url="http://prometheus.test",
            doors=(Door(str(member.key)),),
            hold=member.hold,
        )

    def cluster_view(self) -> ClusterView:
        return ClusterView(tuple(self.nodes.values()), self.nodes_version, tuple(self.members))

    def scaling(self) -> Scaling:
        """Return an operator's balancer, which has just been started."""
        return Scaling(self, load=Known(self), gateways=Told(self), workers=Changed(self))

    async def step(self, scaling: Scaling, member: Member) -> Report:
        return await scaling.step(self.view(member), self.cluster_view(), self.now)

    async def run(
        self,
        scaling: Scaling,
        seconds: float,
        watch: Callable[[Member, Report], None] | None = None,
        members: Iterable[Member] | None = None,
        pace: float = 1.0,
    ) -> dict[Key, Report]:
        """Let time pass, with a step of each pipeline every second, or as often as told."""
        reports = {}
        for _ in range(int(seconds / pace)):
            self.tick(pace)
            for _ in range(5):  # what goes on in the background
                await asyncio.sleep(0)
            for member in list(members or self.members.values()):
                report = await self.step(scaling, member)
                reports[member.key] = report
                if watch is not None:
                    watch(member, report)
        return reports

    def outcomes(self, member: Member) -> Mapping[str, Outcome]:
        """Return what a Prometheus would answer."""
        if not self.prometheus:
            return {query.name: Missing("Prometheus is away") for query in QUERIES}
        jobs, ready = member.jobs, self.ready(member)
        values: dict[str, dict[tuple[str, ...], float]] = {query.name: {} for query in QUERIES}
        values["queued"][()] = 0
        values["arrivals"][()] = jobs.arrivals
        for stage in STAGES:
            count = sum(number for place, number in ready.items() if place.stage == stage)
            waiting = int(jobs.waiting[stage])
            running = min(count, waiting + round(jobs.flows[stage] > 0))
            values["jobs"][stage, "waiting"] = max(0, waiting - running)
            values["jobs"][stage, "running"] = running
            values["jobs"][stage, "transferring"] = 0
            values["completed"][(stage,)] = jobs.flows[stage]
            values["reporting"][(stage,)] = count
            capacity = self.capacity(member)[stage]
            busy = min(1.0, jobs.flows[stage] / capacity) if capacity else 0.0
            for state, share in (("busy", busy), ("starved", 1.0 - busy), ("blocked", 0.0)):
                if count:
                    values["shares"][stage, state] = share
        for place, count in ready.items():
            for state in ("ready", "loading", "draining", "quarantined"):
                values["replicas"][place.stage, place.pool, state] = (
                    count if state == "ready" else 0
                )
        return {
            name: Answer(
                self.now,
                {"value": dict(found), "last": dict(found), "at": dict.fromkeys(found, self.now)},
            )
            for name, found in values.items()
        }


class Known(Load):
    """Load that is known at once."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.watched: dict[Key, tuple[Source, str]] = {}

    def watch(self, key: Key, source: Source, name: str) -> None:
        self.watched[key] = source, name

    def forget(self, key: Key) -> None:
        self.watched.pop(key, None)

    def last(self, key: Key) -> Answers | None:
        if key not in self.watched:
            return None
        return Answers(self._world.now, self._world.outcomes(self._world.members[key]))


class Told(Gateways):
    """Gateways that say what a test tells them."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def fleet(
        self, door: Door, request: fleet_pb2.GetFleetRequest, seconds: float
    ) -> fleet_pb2.GetFleetResponse:
        return self._world.fleets.get(door.address) or fleet_pb2.GetFleetResponse()

    async def record(
        self, door: Door, request: fleet_pb2.RecordDecisionRequest, seconds: float
    ) -> None:
        if door.address in self._world.deaf:
            raise UnavailableError("nobody is there")
        self._world.told.append((door.address, request.decision))


class Changed(Workers):
    """Workers that change their stage, as those of the cluster's pods do."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def change(
        self, host: str, name: str, stage: str, tls: TlsSettings | None, seconds: float
    ) -> bool:
        world = self._world
        assert name == host, "the address of a pod is its name here"
        world._called("change", host, stage)
        pod = world.pods.get(host)
        ready = pod is not None and pod.ready_at is not None and pod.ready_at <= world.now
        if pod is None or not ready or host in world.deaf_workers:
            raise UnavailableError("nobody is there")
        if host in world.stubborn or pod.leaves_at is not None:
            raise FailedPreconditionError("the worker is leaving", reason="WORKER_LEAVING")
        if pod.serves != stage:
            pod.serves = stage
            pod.changes_at = world.now + world.change_seconds
        return pod.works(world.now)


def counts(member: Member, world: World) -> dict[str, int]:
    """Return the replicas that Deployments ask for, by stage."""
    found = dict.fromkeys(STAGES, 0)
    for place, count in world.asked(member).items():
        found[place.stage] += count
    return found
