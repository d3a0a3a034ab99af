"""A reconciler with everything around it, in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from disagfusion_operator.desired.inputs import Release
from disagfusion_operator.k8s.kinds import CHILDREN, DEPLOYMENT, PIPELINE, POD
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.reconcile.gateways import Fleet, Gateways
from disagfusion_operator.reconcile.queue import Look
from disagfusion_operator.reconcile.reconciler import Reconciler, Settings
from disagfusion_operator.scaling.flex import together
from disagfusion_operator.scaling.gateways import Door
from disagfusion_operator.scaling.report import Choice, PlaceReport, Report
from disagfusion_operator.scaling.view import ClusterView, Key, PipelineView
from fake_nodes import FakeNodes
from fakes import FakeCluster, pipeline

from disagfusion.errors import UnauthenticatedError, UnavailableError

IMAGES = ("encoder", "dit", "decoder", "gateway", "flex", "emulated")
RELEASE = Release(
    {one: f"registry/{one}:1" for one in IMAGES},
    namespace="operator-system",
)


class FakeGateways(Gateways):
    """Gateways that say what they are told to.

    Attributes:
        state: What each of them knows; None: they do not answer.
        known: What some know, by address.
        refusing: Whether they do not know the key.
        admission: What each was told last, by address.
        cancelled: Why jobs were cancelled, once for each gateway.
    """

    def __init__(self) -> None:
        self.state: Fleet | None = Fleet()
        self.known: dict[str, Fleet] = {}
        self.refusing = False
        self.admission: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.asked = 0

    async def fleet(self, door: Door) -> Fleet:
        self.asked += 1
        if self.refusing:
            raise UnauthenticatedError("the API key is not known")
        if self.state is None:
            raise UnavailableError("away")
        assert door.key.startswith("dfk_")
        return self.known.get(door.address, self.state)

    async def admit(self, door: Door, *, refuse: str) -> None:
        self.admission[door.address] = refuse

    async def cancel(self, door: Door, reason: str) -> None:
        self.cancelled.append(reason)


class FakeScaling:
    """Gives every stage its least number of replicas on its first pool, or what it is told to."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self.views: list[PipelineView] = []
        self.forgotten: list[Key] = []
        self.left: list[PipelineView] = []
        self.held: dict[Key, set[str]] = {}
        self.wanted: dict[tuple[str, str], int] = {}
        self.report: dict[str, Any] = {}
        self.knows = True
        """Whether it knows what the pipeline may have."""

    async def step(self, view: PipelineView, cluster: ClusterView, now: float) -> Report:
        self.views.append(view)
        if not self.knows:
            return Report({}, again_after=1.0)
        places = {}
        first = {stage: view.spec.pools_of(stage)[0] for stage, _ in view.spec.stages.items()}
        least = {stage: what.min_replicas for stage, what in view.spec.stages.items()}
        for place in view.deployments:
            default = least[place.stage] if first[place.stage] == place.pool else 0
            places[place] = PlaceReport(desired=self.wanted.get((place.stage, place.pool), default))
        for name, mine in together(view.deployments).items():
            wanted = sum(places[place].desired for place in mine)
            if view.deployments[mine[0]]["spec"]["replicas"] != wanted:
                await self._cluster.scale(view.key.namespace, name, wanted)
        choice = Choice(1_800_000_000.0, "First", "as the specification says")
        return Report(places, **{"choice": choice, "again_after": 10.0, **self.report})

    def leave(self, view: PipelineView, now: float) -> None:
        self.left.append(view)

    def hold(self, key: Key, pods: Iterable[Object]) -> None:
        self.held[key] = {pod["metadata"]["name"] for pod in pods}

    def forget(self, key: Key) -> None:
        self.forgotten.append(key)


@dataclass
class Bench:
    """One operator in one cluster; looks happen when a test says so."""

    cluster: FakeCluster = field(default_factory=FakeCluster)
    gateways: FakeGateways = field(default_factory=FakeGateways)
    key: Key = field(default_factory=lambda: Key("demo", "digits"))
    pod_monitors: bool = False

    def __post_init__(self) -> None:
        self.nodes = FakeNodes(self.cluster)
        self.woken: list[Key] = []
        self.cache = Cache(self.woken.append)
        self.cluster.follow = self._follow
        self.scaling = FakeScaling(self.cluster)
        self.restart()

    def restart(self) -> None:
        """Have another operator take over, which knows only what the cluster says."""
        self.cache = Cache(self.woken.append)
        for kind in (PIPELINE, *CHILDREN, POD):
            for stored in list(self.cluster.stored.values()):
                if stored.kind == kind:
                    self.cache.put(kind, self.cluster._shown(stored) | {})
        self.reconciler = Reconciler(
            self.cluster,
            self.cache,
            self.gateways,
            self.scaling,  # type: ignore[arg-type]  # it has what is used
            RELEASE,
            Settings(),
            now=self.cluster.clock,
            clock=self.cluster.clock,
        )

    def write(self, **spec: Any) -> None:
        """Have somebody write the pipeline."""
        self.cluster.create(pipeline(self.key.name, self.key.namespace, **spec))

    async def look(self) -> Look:
        return await self.reconciler.look(self.key)

    async def settle(self, **spec: Any) -> Object:
        """Write the pipeline where it is given, and look until nothing changes."""
        if spec or (PIPELINE, self.key.namespace, self.key.name) not in self.cluster.stored:
            self.write(**spec)
        for _ in range(30):
            before = self.cluster._version
            await self.look()
            self.nodes.settle()
            if before == self.cluster._version:
                break
        return self.status()

    def status(self) -> Object:
        found: Object = self.cluster.peek(PIPELINE, self.key.namespace, self.key.name)["status"]
        return found

    def condition(self, kind: str) -> Object:
        found: Object = next(one for one in self.status()["conditions"] if one["type"] == kind)
        return found

    def deployment(self, component: str, pool: str = "cpu") -> Object:
        name = f"{self.key.name}-{component}" + (f"-{pool}" if component != "gateway" else "")
        return self.cluster.peek(DEPLOYMENT, self.key.namespace, name)

    def calls(self) -> list[tuple[str, str, str]]:
        """Return the calls since the last time this was asked."""
        found, self.cluster.calls = self.cluster.calls, []
        return found

    def _follow(self, kind: Any, found: Object, gone: bool) -> None:
        if kind not in (PIPELINE, *CHILDREN, POD):
            return
        if gone:
            self.cache.drop(kind, found)
        else:
            self.cache.put(kind, found)
