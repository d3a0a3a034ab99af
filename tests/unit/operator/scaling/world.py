"""A small cluster in memory, with time: Deployments, pods, nodes with accelerators, and jobs."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from disagfusion_operator.api.base import STAGES
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.k8s.port import Cluster, Kind, Object
from disagfusion_operator.scaling.controller import Scaling
from disagfusion_operator.scaling.gateways import Gateway, Gateways
from disagfusion_operator.scaling.load import Answers, Load, Source
from disagfusion_operator.scaling.profiles import read_profile
from disagfusion_operator.scaling.report import Report
from disagfusion_operator.scaling.view import ClusterView, Key, PipelineView

from disagfusion.errors import NotFoundError, UnavailableError
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.observation import Missing
from disagfusion.scheduling.prometheus.answers import Answer, Outcome
from disagfusion.scheduling.prometheus.queries import QUERIES, Scope
from disagfusion.v1 import fleet_pb2

COST = "controller.kubernetes.io/pod-deletion-cost"
BEGIN = 1_800_000_000.0


def stamp(now: float) -> str:
    """Write a time as Kubernetes does, but exactly."""
    return datetime.fromtimestamp(now, UTC).isoformat()


@dataclass
class Pod:
    name: str
    key: Key
    place: Place
    created: float
    node: str = ""
    accelerators: int = 1
    selector: Mapping[str, str] = field(default_factory=dict)
    ready_at: float | None = None
    leaves_at: float | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    unschedulable: bool = False
    waiting_reason: str = ""

    def manifest(self, now: float) -> Object:
        ready = self.ready_at is not None and self.ready_at <= now and self.leaves_at is None
        conditions: list[dict[str, Any]] = [{"type": "Ready", "status": str(ready)}]
        if ready and self.ready_at is not None:
            conditions[0]["lastTransitionTime"] = stamp(self.ready_at)
        if self.unschedulable and not self.node:
            conditions.append(
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            )
        metadata: dict[str, Any] = {
            "name": self.name,
            "namespace": self.key.namespace,
            "uid": self.name,
            "creationTimestamp": stamp(self.created),
            "annotations": dict(self.annotations),
            "labels": {
                "disagfusion.dev/pipeline": self.key.name,
                "disagfusion.dev/stage": self.place.stage,
                "disagfusion.dev/pool": self.place.pool,
            },
        }
        if self.leaves_at is not None:
            metadata["deletionTimestamp"] = stamp(self.leaves_at)
        status: dict[str, Any] = {
            "phase": "Running" if self.node else "Pending",
            "conditions": conditions,
        }
        if self.waiting_reason:
            status["containerStatuses"] = [{"state": {"waiting": {"reason": self.waiting_reason}}}]
        spec = {"nodeName": self.node} if self.node else {}
        return {"metadata": metadata, "spec": spec, "status": status}


@dataclass
class Jobs:
    """Jobs of a pipeline as a fluid: what comes, waits and is done, by stage."""

    rate: Callable[[float], float]
    waiting: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    flows: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    arrivals: float = 0.0
    done: float = 0.0
    came: float = 0.0

    def tick(self, now: float, capacity: Mapping[str, float], seconds: float) -> None:
        self.arrivals = self.rate(now)
        self.came += self.arrivals * seconds
        coming = self.arrivals * seconds
        for stage in STAGES:
            self.waiting[stage] += coming
            coming = min(self.waiting[stage], capacity[stage] * seconds)
            self.waiting[stage] -= coming
            self.flows[stage] = coming / seconds
        self.done += coming


@dataclass
class Member:
    key: Key
    spec: Spec
    uid: str
    jobs: Jobs
    speeds: Mapping[Place, float]
    generation: int = 1
    annotations: dict[str, str] = field(default_factory=dict)
    deployments: dict[Place, Object] = field(default_factory=dict)
    hold: str = ""


class World(Cluster):
    """Answers as an API server does to what a balancer asks, and moves on with time.

    Attributes:
        now: Unix seconds.
        start_seconds: From the choice of a node until a pod is ready.
        drain_seconds: From a ready pod's deletion until it is gone.
        calls: What was asked, in order.
        failing: Called before each call; raises what the API server would answer.
        quota: Namespace → pods that may be there; none: as many as there are nodes for.
    """

    def __init__(self) -> None:
        self.now = BEGIN
        self.start_seconds = 5.0
        self.drain_seconds = 8.0
        self.calls: list[tuple[Any, ...]] = []
        self.failing: Callable[[tuple[Any, ...]], None] = lambda call: None
        self.quota: dict[str, int] = {}
        self.nodes: dict[str, Object] = {}
        self.nodes_version = 0
        self.members: dict[Key, Member] = {}
        self.pods: dict[str, Pod] = {}
        self.autoscalers: list[Object] = []
        self.prometheus = True
        self.told: list[tuple[str, fleet_pb2.FleetDecision]] = []
        self.deaf: set[str] = set()
        self.fleets: dict[str, fleet_pb2.GetFleetResponse] = {}
        self._names = Counter[str]()

    # What people do.

    def add_nodes(
        self, pool: str, count: int, accelerators: int, resource: str = "nvidia.com/gpu"
    ) -> None:
        for _ in range(count):
            name = f"{pool}-{len(self.nodes)}"
            self.nodes[name] = {
                "metadata": {"name": name, "labels": {"pool": pool}},
                "spec": {},
                "status": {
                    "allocatable": {resource: str(accelerators)},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }
        self.nodes_version += 1

    def cordon(self, name: str) -> None:
        self.nodes[name]["spec"]["unschedulable"] = True
        self.nodes_version += 1

    def add(
        self,
        name: str,
        spec: Mapping[str, Any],
        rate: Callable[[float], float] = lambda now: 0.0,
        namespace: str = "default",
    ) -> Member:
        key = Key(namespace, name)
        parsed = Spec.model_validate({"model": {"builtin": "digits"}, **spec})
        speeds = {Place(*place): 1.0 for place in parsed.places()}
        source = parsed.scaling.profile
        if source is not None and source.inline is not None:
            profile = read_profile(source.inline)
            for stage, what in profile.stages.items():
                for pool, costs in what.pools.items():
                    speeds[Place(stage, pool)] = 1.0 / (costs.seconds or 1.0)
        self._names["uid"] += 1
        member = Member(key, parsed, f"uid-{self._names['uid']}", Jobs(rate), speeds)
        self.members[key] = member
        self.make_deployments(member)
        return member

    def make_deployments(self, member: Member) -> None:
        for stage, pool in member.spec.places():
            place = Place(stage, pool)
            if place not in member.deployments:
                member.deployments[place] = {
                    "metadata": {
                        "name": f"{member.key.name}-{stage}-{pool}",
                        "namespace": member.key.namespace,
                        "generation": 1,
                        "managedFields": [],
                    },
                    "spec": {"replicas": 0},
                    "status": {},
                }

    def change(self, member: Member, spec: Mapping[str, Any]) -> None:
        member.spec = Spec.model_validate({"model": {"builtin": "digits"}, **spec})
        member.generation += 1
        self.make_deployments(member)

    def scale_by_hand(self, member: Member, place: Place, replicas: int, manager: str) -> None:
        deployment = member.deployments[place]
        deployment["metadata"]["generation"] += 1
        deployment["spec"]["replicas"] = replicas
        deployment["metadata"]["managedFields"] = [
            {"manager": manager, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        ]

    # The API server.

    async def scale(self, namespace: str, name: str, replicas: int) -> None:
        self._called("scale", name, replicas)
        deployment = self._deployment(namespace, name)
        if deployment["spec"]["replicas"] != replicas:
            deployment["metadata"]["generation"] += 1
            deployment["spec"]["replicas"] = replicas
            deployment["metadata"]["managedFields"] = [
                {"manager": "disagfusion-balancer", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
            ]
        self.settle()

    async def annotate(
        self, kind: Kind, namespace: str, name: str, annotations: Mapping[str, str | None]
    ) -> None:
        self._called("annotate", kind.kind, name, dict(annotations))
        if kind.kind == "Pod":
            if name not in self.pods:
                raise NotFoundError(name)
            target = self.pods[name].annotations
        else:
            target = self.members[Key(namespace, name)].annotations
        for field_name, value in annotations.items():
            if value is None:
                target.pop(field_name, None)
            else:
                target[field_name] = value

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        raise NotImplementedError

    async def list(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        raise NotImplementedError

    async def apply(self, manifest: Object) -> Object:
        raise NotImplementedError

    async def replace(self, manifest: Object) -> Object:
        raise NotImplementedError

    async def apply_status(self, manifest: Object) -> Object:
        raise NotImplementedError

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        raise NotImplementedError

    async def record(
        self, about: Object, *, warning: bool, reason: str, message: str, action: str
    ) -> None:
        raise NotImplementedError

    def _called(self, *call: Any) -> None:
        self.failing(call)
        self.calls.append(call)

    def _deployment(self, namespace: str, name: str) -> Object:
        for member in self.members.values():
            for deployment in member.deployments.values():
                if (member.key.namespace, deployment["metadata"]["name"]) == (namespace, name):
                    return deployment
        raise NotFoundError(name)

    # Controllers, scheduler, kubelets.

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        for name in [
            name
            for name, pod in self.pods.items()
            if pod.leaves_at is not None and pod.leaves_at <= self.now
        ]:
            del self.pods[name]
        self.settle()
        for member in self.members.values():
            member.jobs.tick(self.now, self.capacity(member), seconds)

    def settle(self) -> None:
        for member in self.members.values():
            for place, deployment in member.deployments.items():
                self._replicate(member, place, deployment)
        self._schedule()

    def _replicate(self, member: Member, place: Place, deployment: Object) -> None:
        live = self.live(member, place)
        missing = deployment["spec"]["replicas"] - len(live)
        deployment["status"]["conditions"] = []
        for _ in range(max(0, missing)):
            namespace = member.key.namespace
            there = sum(pod.key.namespace == namespace for pod in self.pods.values())
            if there >= self.quota.get(namespace, 10**9):
                since = deployment["metadata"].setdefault("refused", self.now)
                deployment["status"]["conditions"] = [
                    {
                        "type": "ReplicaFailure",
                        "status": "True",
                        "reason": "FailedCreate",
                        "message": "exceeded quota: pods",
                        "lastTransitionTime": stamp(since),
                    }
                ]
                return
            name = f"{member.key.name}-{place.stage}-{place.pool}-{self._names[str(place)]}"
            self._names[str(place)] += 1
            where = member.spec.pools[place.pool]
            self.pods[name] = Pod(
                name,
                member.key,
                place,
                self.now,
                accelerators=where.accelerators,
                selector=where.node_selector,
            )
        deployment["metadata"].pop("refused", None)
        # As the ReplicaSet controller ranks them.
        live.sort(
            key=lambda pod: (
                bool(pod.node),
                pod.ready_at is not None and pod.ready_at <= self.now,
                int(pod.annotations.get(COST, "0")),
                -pod.created,
            )
        )
        for pod in live[: max(0, -missing)]:
            working = pod.ready_at is not None and pod.ready_at <= self.now
            pod.leaves_at = self.now + (self.drain_seconds if working else 0.5)

    def _schedule(self) -> None:
        used = Counter[str]()
        for pod in self.pods.values():
            if pod.node:
                used[pod.node] += pod.accelerators
        for pod in self.pods.values():
            if pod.node or pod.leaves_at is not None:
                continue
            for name, node in self.nodes.items():
                room = int(next(iter(node["status"]["allocatable"].values()))) - used[name]
                if (
                    not node["spec"].get("unschedulable")
                    and pod.selector.items() <= node["metadata"]["labels"].items()
                    and room >= pod.accelerators
                ):
                    pod.node, pod.unschedulable = name, False
                    pod.ready_at = self.now + self.start_seconds
                    used[name] += pod.accelerators
                    break
            else:
                pod.unschedulable = True

    # What there is.

    def live(self, member: Member, place: Place) -> list[Pod]:
        return [
            pod
            for pod in self.pods.values()
            if pod.key == member.key and pod.place == place and pod.leaves_at is None
        ]

    def ready(self, member: Member) -> Counter[Place]:
        return Counter(
            pod.place
            for pod in self.pods.values()
            if pod.key == member.key
            and pod.leaves_at is None
            and pod.ready_at is not None
            and pod.ready_at <= self.now
        )

    def asked(self, member: Member) -> dict[Place, int]:
        return {place: one["spec"]["replicas"] for place, one in member.deployments.items()}

    def held(self, pool: str | None = None, key: Key | None = None) -> int:
        """Return the accelerators that pods hold or ask for, those that terminate included."""
        return sum(
            pod.accelerators
            for pod in self.pods.values()
            if (pool is None or pod.place.pool == pool) and (key is None or pod.key == key)
        )

    def capacity(self, member: Member) -> dict[str, float]:
        found = dict.fromkeys(STAGES, 0.0)
        for place, count in self.ready(member).items():
            found[place.stage] += count * member.speeds[place]
        return found

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
            fleet_addresses=(str(member.key),),
            hold=member.hold,
        )

    def cluster_view(self) -> ClusterView:
        return ClusterView(tuple(self.nodes.values()), self.nodes_version, tuple(self.members))

    def scaling(self) -> Scaling:
        """Return an operator's balancer, which has just been started."""
        return Scaling(self, load=Known(self), gateways=Told(self))

    async def step(self, scaling: Scaling, member: Member) -> Report:
        return await scaling.step(self.view(member), self.cluster_view(), self.now)

    async def run(
        self,
        scaling: Scaling,
        seconds: float,
        watch: Callable[[Member, Report], None] | None = None,
        members: Iterable[Member] | None = None,
    ) -> dict[Key, Report]:
        """Let time pass, with a step of each pipeline every second."""
        reports = {}
        for _ in range(int(seconds)):
            self.tick()
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
        self, gateway: Gateway, request: fleet_pb2.GetFleetRequest, seconds: float
    ) -> fleet_pb2.GetFleetResponse:
        return self._world.fleets.get(gateway.address) or fleet_pb2.GetFleetResponse()

    async def record(
        self, gateway: Gateway, request: fleet_pb2.RecordDecisionRequest, seconds: float
    ) -> None:
        if gateway.address in self._world.deaf:
            raise UnavailableError("nobody is there")
        self._world.told.append((gateway.address, request.decision))


class Asked:
    """Answers questions about many pipelines; for `Load`."""

    def __init__(self, answer: Callable[[Sequence[tuple[str, str]], Scope], Any]) -> None:
        self.ask = answer


def pool(name: str, *, accelerators: int = 1, **more: Any) -> dict[str, Any]:
    """Return a pool of the specification."""
    resource = {"resource": "nvidia.com/gpu", "count": accelerators}
    return {"nodeSelector": {"pool": name}, "accelerator": resource, **more}


def profile(pools: Iterable[str], **seconds: float | Mapping[str, float]) -> dict[str, Any]:
    """Return an inline profile: seconds of a stage, the same on all pools or by pool."""
    names = list(pools)
    return {
        "inline": {
            "pools": {name: {"accelerators": 1} for name in names},
            "stages": {
                stage: {
                    "pools": {
                        name: {"seconds": one[name] if isinstance(one, Mapping) else one}
                        for name in names
                        if not isinstance(one, Mapping) or name in one
                    }
                }
                for stage, one in seconds.items()
            },
        }
    }


def counts(member: Member, world: World) -> dict[str, int]:
    """Return the replicas that Deployments ask for, by stage."""
    found = dict.fromkeys(STAGES, 0)
    for place, count in world.asked(member).items():
        found[place.stage] += count
    return found
