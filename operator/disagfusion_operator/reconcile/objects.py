"""Bringing a pipeline's objects to what they should be, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from disagfusion.errors import (
    DisagfusionError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from disagfusion.scheduling.decision import Place
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.desired import gateway, pipeline
from disagfusion_operator.desired.inputs import Inputs
from disagfusion_operator.desired.names import (
    FLEX,
    MANAGED_LABEL,
    MANAGER,
    gateway_deployment,
)
from disagfusion_operator.k8s.kinds import CLAIM, DEPLOYMENT, kind_of
from disagfusion_operator.k8s.port import OPERATOR, Cluster, Object
from disagfusion_operator.k8s.states import is_over
from disagfusion_operator.reconcile import trims
from disagfusion_operator.reconcile.apply import NAMESAKE_GOES, Applier
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.reconcile.observe import Observed, crew_of
from disagfusion_operator.reconcile.outcome import Outcome, failed, waits
from disagfusion_operator.reconcile.rollout import Turn
from disagfusion_operator.reconcile.strays import Stay, Strays
from disagfusion_operator.scaling.conflict import scalers
from disagfusion_operator.scaling.view import Key

_NAMESAKE = "NamesakeGoes"

_log = get_logger(__name__)


class Objects:
    """Makes, mends and takes away what belongs to pipelines.

    Args:
        cluster: Where they are.
        cache: What is known of them.
        applier: Applies what differs.
        strays: Says when what is no more may go.
    """

    def __init__(self, cluster: Cluster, cache: Cache, applier: Applier, strays: Strays) -> None:
        self._cluster = cluster
        self._cache = cache
        self._applier = applier
        self._strays = strays
        self._settled: dict[Key, tuple[object, int]] = {}

    async def bring(
        self, key: Key, inputs: Inputs, observed: Observed, turns: Mapping[str, Turn]
    ) -> list[Outcome]:
        """Bring all objects of a pipeline to what they should be.

        Args:
            key: The pipeline.
            inputs: What decides what they should be.
            observed: What there is.
            turns: Which stages may get what they should be.

        Returns:
            How it ended, for each object that is not there or not as it should be.

        Raises:
            UnavailableError: The API server is away.
        """
        follows = self._is_scaled(key, inputs)
        stamp = (inputs, tuple((name, turn.may) for name, turn in turns.items()), follows)
        if self._settled.get(key) == (stamp, self._cache.stamp(key)):
            return []
        outcomes = []
        wanted = pipeline.supports(inputs)
        for manifest in wanted:
            outcomes += await self._ensure(key, manifest)
        if any(one.reason == _NAMESAKE for one in outcomes):
            # A new pod would hold a volume that is about to go.
            return outcomes
        door = gateway.deployment(inputs)
        if follows:
            replicas = door["spec"].pop("replicas")
            outcomes += await self._unnumbered(key, door, observed.gateway, replicas)
        else:
            outcomes += await self._ensure(key, door)
        stages = pipeline.stage_deployments(inputs)
        for crew, manifest in stages:
            # Pods of several stages cannot wait for each other: they go with the first stage.
            if len(crew.stages) > 1 or turns[crew.stages[0]].may:
                place = Place(crew.stages[0], crew.pool)
                found = observed.deployments.get(place)
                outcomes += await self._unnumbered(key, manifest, found, 0)
        if not observed.strays:
            self._strays.forget(key)
        stays = self._strays.stay(key, inputs, observed, turns)
        for stray in observed.strays:
            outcomes += await self._take_away(
                key, stray, observed, stays[stray["metadata"]["name"]]
            )
        wanted += [door, *(manifest for _, manifest in stages)]
        outcomes += await self._prune(key, wanted, observed)
        if not outcomes:
            self._settled[key] = stamp, self._cache.stamp(key)
        return outcomes

    def forget(self, key: Key) -> None:
        """Forget what is known about a pipeline's objects."""
        self._settled.pop(key, None)
        self._strays.forget(key)

    def _is_scaled(self, key: Key, inputs: Inputs) -> bool:
        """Tell whether somebody else says how many gateways there are; SQLite is for one."""
        if inputs.spec.gateway.store.sqlite is not None:
            return False
        return gateway_deployment(key.name) in scalers(self._cache.autoscalers(key.namespace))

    async def _ensure(self, key: Key, manifest: Object) -> list[Outcome]:
        try:
            await self._applier.ensure(key, manifest)
        except UnavailableError:
            raise
        except DisagfusionError as error:
            return [_refused(manifest, error)]
        return []

    async def _unnumbered(
        self, key: Key, manifest: Object, found: Object | None, first: int
    ) -> list[Outcome]:
        """Bring a Deployment to what it should be whose replicas somebody else decides.

        They are the operator's own until somebody asks for some, and must not be left out before:
        with nobody to say their number there is one.

        Args:
            key: The pipeline.
            manifest: What it should be, without replicas.
            found: What there is.
            first: Replicas with which it is made.
        """
        name = manifest["metadata"]["name"]
        try:
            if found is None:
                there = await self._applier.make(key, manifest, {"replicas": first})
                if there is None:
                    return []
                found = trims.deployment(there)
            if _is_ours(found) and not self._applier.is_current(key, manifest):
                # Somebody may have asked for some that caches have not seen yet.
                fresh = trims.deployment(await self._cluster.get(DEPLOYMENT, key.namespace, name))
                if _is_ours(fresh):
                    replicas = int(fresh["spec"].get("replicas", 0))
                    await self._cluster.scale(key.namespace, name, replicas)
            await self._applier.ensure(key, manifest)
        except UnavailableError:
            raise
        except DisagfusionError as error:
            return [_refused(manifest, error)]
        return []

    async def _take_away(
        self, key: Key, stray: Object, observed: Observed, stay: Stay
    ) -> list[Outcome]:
        """Have the pods of a place that is no more finish what they have, then delete it."""
        metadata = stray["metadata"]
        name, replicas = metadata["name"], int(stray["spec"].get("replicas", 0))
        crew = crew_of(stray)
        what = "what changes its stage" if crew[0] == FLEX else crew[0]
        left = [pod for pod in observed.stage_pods if crew_of(pod) == crew and not is_over(pod)]
        try:
            if replicas > stay.replicas:
                await self._cluster.scale(key.namespace, name, stay.replicas)
            elif not replicas and not left and not stray["status"].get("replicas", 0):
                uid = metadata["uid"]
                await self._cluster.delete(DEPLOYMENT, key.namespace, name, uid=uid)
                _log.info("taken away", pipeline=str(key), object=f"Deployment/{name}")
        except NotFoundError:
            return []
        message = f"{what} no longer runs on {crew[1]}; "
        if stay.replicas:
            return [waits(stay.reason, f"{message}its pods stay: {stay.why}")]
        pods = f"{len(left)} pods" if len(left) != 1 else "a pod"
        return [waits(stay.reason, f"{message}{pods} finish what they have")]

    async def _prune(self, key: Key, wanted: Iterable[Object], observed: Observed) -> list[Outcome]:
        """Delete what was made once and is not wanted any more; never a volume."""
        names = {(kind_of(one), one["metadata"]["name"]) for one in wanted}
        names |= {(DEPLOYMENT, one["metadata"]["name"]) for one in observed.strays}
        outcomes = []
        for child in self._cache.children(key):
            if (child.kind, child.name) in names or child.kind == CLAIM or child.deleting:
                continue
            labels = child.content()["metadata"].get("labels") or {}
            if labels.get(MANAGED_LABEL) != MANAGER:
                continue
            await self._cluster.delete(child.kind, key.namespace, child.name, uid=child.uid)
            _log.info("pruned", pipeline=str(key), object=f"{child.kind.kind}/{child.name}")
            outcomes.append(waits("Pruning", f"{child.kind.kind} {child.name} is taken away"))
        return outcomes


def _is_ours(found: Object) -> bool:
    """Tell whether a Deployment's replicas are nobody's but the operator's."""
    entries = found["metadata"].get("managedFields") or ()
    return {entry.get("manager") for entry in entries} <= {OPERATOR}


def _refused(manifest: Object, error: DisagfusionError) -> Outcome:
    what = f"{manifest['kind']} {manifest['metadata']['name']}"
    if isinstance(error, PermissionDeniedError):
        return failed("Forbidden", f"{what}: {error.message}")
    if error.reason == NAMESAKE_GOES:
        return waits(_NAMESAKE, f"{what}: {error.message}")
    return failed("NotApplied", f"{what}: {error.message}")
