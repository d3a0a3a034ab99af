"""A small cluster in memory, with time: Deployments, pods, and nodes with accelerators."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from disagfusion_operator.api.base import STAGES
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.desired.crews import first_stage, stages_on
from disagfusion_operator.desired.names import FLEX
from disagfusion_operator.k8s.port import Cluster, Kind, Object
from disagfusion_operator.scaling.profiles import read_profile
from disagfusion_operator.scaling.view import Key

from disagfusion.errors import NotFoundError
from disagfusion.scheduling.decision import Place

from .members import BEGIN, COST, Jobs, Member, Pod, stamp


class KilledError(BaseException):
    """The operator's process ends: nothing catches it."""


class SmallCluster(Cluster):
    """Answers as an API server does to what a balancer asks, and moves on with time.

    Attributes:
        now: Unix seconds.
        start_seconds: From the choice of a node until a pod is ready.
        drain_seconds: From a ready pod's deletion until it is gone.
        change_seconds: From a worker's change of its stage until it serves it.
        calls: What was asked, in order.
        failing: Called before each call; raises what the API server would answer.
        quota: Namespace → pods that may be there; none: as many as there are nodes for.
    """

    def __init__(self) -> None:
        self.now = BEGIN
        self.start_seconds = 5.0
        self.drain_seconds = 8.0
        self.change_seconds = 2.0
        self.calls: list[tuple[Any, ...]] = []
        self.failing: Callable[[tuple[Any, ...]], None] = lambda call: None
        self.quota: dict[str, int] = {}
        self.nodes: dict[str, Object] = {}
        self.nodes_version = 0
        self.members: dict[Key, Member] = {}
        self.pods: dict[str, Pod] = {}
        self._names = Counter[str]()

    @contextmanager
    def killed_after(self, survived: int) -> Iterator[None]:
        """Have whoever calls end with the call after so many; it has to come to that."""
        last = len(self.calls) + survived

        def fail(call: tuple[Any, ...]) -> None:
            if len(self.calls) >= last:
                raise KilledError

        self.failing = fail
        with pytest.raises(KilledError):
            yield
        self.failing = lambda call: None

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

    def lose(self, name: str, grace_seconds: float) -> None:
        """Have a node die, and its pods asked to end there: nobody can tell whether they have."""
        self.nodes[name]["status"]["conditions"][0]["status"] = "Unknown"
        self.cordon(name)
        self.strand([pod for pod in self.pods.values() if pod.node == name], grace_seconds)

    def strand(self, pods: Iterable[Pod], grace_seconds: float) -> None:
        """Have pods asked to end that do not."""
        for pod in pods:
            pod.leaves_at, pod.ends_by = self.now + 1e6, self.now + grace_seconds

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
            crew = FLEX if member.spec.flexes(pool) else stage
            name = f"{member.key.name}-{crew}-{pool}"
            there = [one for one in member.deployments.values() if one["metadata"]["name"] == name]
            if there:
                member.deployments[place] = there[0]
            elif place not in member.deployments:
                member.deployments[place] = {
                    "metadata": {
                        "name": name,
                        "labels": {"app.kubernetes.io/component": crew},
                        "namespace": member.key.namespace,
                        "generation": 1,
                        "managedFields": [],
                    },
                    "spec": {"replicas": 0, "template": {"metadata": {}}},
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

    async def set_finalizers(
        self, kind: Kind, namespace: str, name: str, finalizers: Sequence[str], *, version: str
    ) -> None:
        raise NotImplementedError

    async def relabel(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        labels: Mapping[str, str],
        annotations: Mapping[str, str | None],
    ) -> Object:
        self._called("relabel", name, dict(labels), dict(annotations))
        if name not in self.pods:
            raise NotFoundError(name)
        pod = self.pods[name]
        if stage := labels.get("disagfusion.dev/stage"):
            pod.place = Place(stage, pod.place.pool)
        for field_name, value in annotations.items():
            if value is None:
                pod.annotations.pop(field_name, None)
            else:
                pod.annotations[field_name] = value
        pod.version += 1
        return pod.manifest(self.now)

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        raise NotImplementedError

    def list(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Object]:
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
        for pod in self.pods.values():
            # A container begins with the label that its pod has then.
            if pod.works(self.now) and not pod.serves:
                pod.serves = pod.place.stage
        for member in self.members.values():
            member.jobs.tick(self.now, self.capacity(member), seconds)

    def settle(self) -> None:
        for member in self.members.values():
            for deployment in {
                one["metadata"]["name"]: one for one in member.deployments.values()
            }.values():
                self._replicate(member, deployment)
        self._schedule()

    def _replicate(self, member: Member, deployment: Object) -> None:
        places = [place for place, one in member.deployments.items() if one is deployment]
        crew = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        first = places[0]
        if crew == FLEX:
            first = Place(first_stage(stages_on(member.spec, first.pool)), first.pool)
        live = [
            pod
            for pod in self.pods.values()
            if pod.key == member.key
            and (pod.place == first or crew == FLEX == pod.crew)
            and pod.place.pool == first.pool
            and pod.leaves_at is None
        ]
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
            name = f"{deployment['metadata']['name']}-{self._names[str(first)]}"
            self._names[str(first)] += 1
            where = member.spec.pools[first.pool]
            self.pods[name] = Pod(
                name,
                member.key,
                first,
                self.now,
                accelerators=where.accelerators,
                selector=where.node_selector,
                crew=crew,
            )
        deployment["metadata"].pop("refused", None)
        # As the ReplicaSet controller ranks them.
        live.sort(
            key=lambda pod: (
                bool(pod.node),
                pod.works(self.now),
                int(pod.annotations.get(COST, "0")),
                -pod.created,
            )
        )
        for pod in live[: max(0, -missing)]:
            pod.leaves_at = self.now + (self.drain_seconds if pod.works(self.now) else 0.5)

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
        """Return the workers that serve, by what they serve."""
        return Counter(
            Place(pod.serves, pod.place.pool)
            for pod in self.pods.values()
            if pod.key == member.key and pod.leaves_at is None and pod.works(self.now)
        )

    def asked(self, member: Member) -> dict[Place, int]:
        """Return the replicas that Deployments ask for; of one for several places, its pods."""
        return {
            place: len(self.live(member, place))
            if member.spec.flexes(place.pool)
            else one["spec"]["replicas"]
            for place, one in member.deployments.items()
        }

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
