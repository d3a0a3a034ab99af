"""How many replicas of a place that is no more stay, until others serve in its stead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from disagfusion_operator.desired.inputs import Inputs
from disagfusion_operator.desired.names import version_of
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.k8s.states import condition, is_leaving, is_over, is_ready, seconds_of
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.reconcile.observe import Observed, crew_of, is_changing
from disagfusion_operator.reconcile.rollout import Turn
from disagfusion_operator.scaling.behavior import LOADING_SECONDS
from disagfusion_operator.scaling.capacity import LATE_SECONDS, patience
from disagfusion_operator.scaling.fleet import place_of
from disagfusion_operator.scaling.intent import ANNOTATION, read_intent
from disagfusion_operator.scaling.view import Key

SETTLE_SECONDS = 45.0
"""For so long nothing has to be under way before room is made: the balancer begins after 30 s."""


@dataclass(frozen=True, slots=True)
class Stay:
    """What becomes of a place that is no more.

    Attributes:
        replicas: That stay for now.
        why: What they wait for; empty where none stays.
        reason: The same as one word for programs.
    """

    replicas: int
    why: str = ""
    reason: str = "RemovingPool"


@dataclass(slots=True)
class _Wait:
    """How long one has waited, by a clock that only grows.

    Attributes:
        since: When it began.
        idle: Since when nothing has been under way that it could wait for.
    """

    since: float
    idle: float


class Room:
    """What others lack, at one time.

    Args:
        now: Unix seconds.
        cache: What is known of nodes.
        inputs: What decides what there should be.
        observed: What there is.

    Attributes:
        comes: Whether some is about to become free.
    """

    def __init__(
        self, now: Callable[[], float], cache: Cache, inputs: Inputs, observed: Observed
    ) -> None:
        self._nodes = cache.nodes
        self._spec = inputs.spec
        self._observed = observed
        self._others = [pod for pod in staying(observed.stage_pods) if is_wanted(pod, observed)]
        ends = [
            pod["metadata"].get("deletionTimestamp")
            for pod in observed.stage_pods
            if not is_over(pod)
        ]
        self.comes = any(end and now() < seconds_of(end) + LATE_SECONDS for end in ends)

    def others_come(self, stages: Iterable[str]) -> bool:
        """Tell whether pods start, or Deployments of stages are about to be made."""
        made = {place.stage for place in self._observed.deployments}
        return not made.issuperset(stages) or not all(map(serves, self._others))

    def is_lacked_on_nodes_of(self, pods: Collection[Object]) -> bool:
        """Tell whether some find no node since others are there."""
        pools = {place_of(pod).pool for pod in self._others if _finds_no_node(pod)}
        return any(self._are_on(pool, pods) for pool in pools)

    def is_held_by(self, pods: Collection[Object]) -> bool:
        """Tell whether others can lack what pods hold: of the budget, or on their nodes."""
        budget, pools = self._spec.scaling.budget, self._spec.pools
        places = {place.pool for place in self._observed.deployments}
        if budget is not None:
            held = sum(
                pools[name].accelerators if (name := place_of(pod).pool) in pools else 1
                for pod in self._observed.stage_pods
                if not is_over(pod)
            )
            if held + min(pools[name].accelerators for name in places) > budget:
                return True
        return any(self._are_on(pool, pods) for pool in places)

    def _are_on(self, pool: str, pods: Iterable[Object]) -> bool:
        """Tell whether pods are on nodes of a pool; where nodes may not be seen, they may be."""
        selector = self._spec.pools[pool].node_selector
        nodes = {one["metadata"]["name"]: one for one in self._nodes()}
        found = [nodes.get(pod["spec"].get("nodeName", "")) for pod in pods]
        labels = [one["metadata"].get("labels") or {} for one in found if one is not None]
        return not nodes or any(selector.items() <= one.items() for one in labels)


class Strays:
    """Decides for all of them.

    Args:
        cache: What is known of nodes and pipelines.
        clock: Seconds that only grow.
        now: Unix seconds.
    """

    def __init__(self, cache: Cache, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._cache = cache
        self._clock = clock
        self._now = now
        self._waits: dict[Key, dict[str, _Wait]] = {}

    def forget(self, key: Key) -> None:
        """Forget a pipeline."""
        self._waits.pop(key, None)

    def stay(
        self, key: Key, inputs: Inputs, observed: Observed, turns: Mapping[str, Turn]
    ) -> dict[str, Stay]:
        """Return how many replicas stay, by the Deployment's name.

        Those of another version stay for the jobs that need it. Those of the same one stay until
        their stage has others, as long as these can come: where others lack their room, one goes
        after the other, and in the end all do.

        Args:
            key: The pipeline.
            inputs: What decides what there should be.
            observed: What there is.
            turns: Which stages may get what they should be.
        """
        found: dict[str, Stay] = {}
        room = Room(self._now, self._cache, inputs, observed)
        # The last of a stage goes after such of which there are more.
        for stray in sorted(observed.strays, key=_replicas, reverse=True):
            name, replicas = stray["metadata"]["name"], _replicas(stray)
            if not replicas:
                found[name] = Stay(0)
            elif inputs.spec.scaling.paused:
                # Nothing would be started in their place.
                found[name] = Stay(replicas, "scaling.paused is true", "Paused")
            elif version_of(stray["spec"]["template"]) != inputs.version:
                # Pods of several stages cannot wait for each other.
                turn = turns.get(crew_of(stray)[0])
                found[name] = Stay(0) if turn is None or turn.may else Stay(replicas, turn.why)
            else:
                found[name] = self._until_others_are_ready(key, stray, inputs, observed, room)
        return found

    def _until_others_are_ready(
        self, key: Key, stray: Object, inputs: Inputs, observed: Observed, room: Room
    ) -> Stay:
        crew, replicas = crew_of(stray), _replicas(stray)
        mine = [pod for pod in staying(observed.stage_pods) if crew_of(pod) == crew]
        lacking = self._lacking(key, inputs, observed, mine)
        if not lacking:
            return Stay(0)
        now = self._clock()
        waits = self._waits.setdefault(key, {})
        wait = waits.setdefault(stray["metadata"]["uid"], _Wait(now, now))
        if now - wait.since >= LOADING_SECONDS + max(map(patience, inputs.spec.pools.values())):
            return Stay(0)
        why = f"no others of {' and '.join(lacking)} are ready yet"
        if room.comes or room.others_come(lacking):
            wait.idle = now
        if room.comes:
            return Stay(replicas, why)
        if room.is_lacked_on_nodes_of(mine) or (
            now - wait.idle >= SETTLE_SECONDS and room.is_held_by(mine)
        ):
            room.comes = True
            return Stay(replicas - 1, why)
        return Stay(replicas, why)

    def _lacking(
        self, key: Key, inputs: Inputs, observed: Observed, mine: Iterable[Object]
    ) -> list[str]:
        """Return the stages of such pods that should have others and have too few that work."""
        resource = self._cache.pipeline(key) or {"metadata": {}}
        intent = read_intent((resource["metadata"].get("annotations") or {}).get(ANNOTATION))
        desired = {} if intent is None else intent.desired
        here: dict[str, int] = {}
        for pod in filter(serves, mine):
            here[place_of(pod).stage] = here.get(place_of(pod).stage, 0) + 1
        found = []
        for stage, count in here.items():
            least = inputs.stage(stage).min_replicas
            wanted = sum(n for place, n in desired.items() if place.stage == stage)
            elsewhere = sum(
                serves(pod) and place_of(pod).stage == stage and is_wanted(pod, observed)
                for pod in staying(observed.stage_pods)
            )
            if (least or wanted) and elsewhere < min(count, max(1, least)):
                found.append(stage)
        return found


def _replicas(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 0))


def staying(pods: Iterable[Object]) -> list[Object]:
    """Return the pods that have not been asked to end."""
    return [pod for pod in pods if not is_leaving(pod) and not is_over(pod)]


def serves(pod: Object) -> bool:
    """Tell whether a pod takes work for its stage."""
    return is_ready(pod) and not is_changing(pod)


def is_wanted(pod: Object, observed: Observed) -> bool:
    """Tell whether a pod is of a Deployment that is to be there."""
    deployment = observed.deployments.get(place_of(pod))
    return deployment is not None and crew_of(pod) == crew_of(deployment)


def _finds_no_node(pod: Object) -> bool:
    scheduled = condition(pod, "PodScheduled")
    return scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
