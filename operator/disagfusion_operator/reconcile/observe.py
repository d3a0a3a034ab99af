"""A pipeline as it is, put in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from disagfusion.scheduling.decision import Place
from disagfusion_operator.api.base import STAGES
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.status import ColdStart, PlaceStatus
from disagfusion_operator.desired.names import (
    CHANGED_ANNOTATION,
    CHANGING_ANNOTATION,
    COMPONENT_LABEL,
    FLEX,
    GATEWAY,
    POOL_LABEL,
)
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.k8s.states import (
    condition,
    containers,
    is_leaving,
    is_over,
    is_ready,
    seconds_of,
)
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.scaling.fleet import place_of
from disagfusion_operator.scaling.view import Key

_STAGED = (*STAGES, FLEX)
_ADOPTION_SECONDS = 15.0
"""For which jobs of a gateway that has died may be nobody's: three times a gateway's lease."""
_LOST_SECONDS = 30.0
"""After a pod should have been gone, it has no jobs any more: others have adopted them."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What belongs to a pipeline.

    Attributes:
        deployments: Of stages, by place, as the specification has places; the one of a pool whose
            pods change their stage is there for each of them.
        strays: Deployments of places that the specification has no more, or has otherwise.
        gateway: The gateways' Deployment; None before it is made.
        stage_pods: Of all stages.
        gateway_pods: Of gateways.
    """

    deployments: Mapping[Place, Object]
    strays: tuple[Object, ...]
    gateway: Object | None
    stage_pods: tuple[Object, ...]
    gateway_pods: tuple[Object, ...]

    @property
    def all_deployments(self) -> tuple[Object, ...]:
        """All Deployments."""
        own = () if self.gateway is None else (self.gateway,)
        stages = {one["metadata"]["name"]: one for one in self.deployments.values()}
        return (*stages.values(), *self.strays, *own)

    def addresses(self) -> list[str]:
        """Return the addresses of gateways that answer."""
        return sorted(
            pod["status"]["podIP"]
            for pod in self.gateway_pods
            if is_ready(pod) and pod["status"].get("podIP")
        )

    def unheard(self, now: float, *, shared: bool) -> str:
        """Return why there may be jobs that no gateway that answers knows; empty: there are none.

        Each gateway knows its own jobs. Those of one that has died are in a shared store, and
        nobody's until another has adopted them, which takes it a few seconds. A single gateway
        reads all that there are before it answers.

        Args:
            now: Unix seconds.
            shared: Whether gateways share a store.
        """
        live = [pod for pod in self.gateway_pods if not is_over(pod)]
        silent = [pod for pod in live if pod["status"].get("podIP") and not is_ready(pod)]
        if any(not _is_lost(pod, now) for pod in silent):
            return "a gateway does not answer that may have jobs"
        if not shared:
            return ""
        wanted = 0
        if self.gateway is not None and not is_leaving(self.gateway):
            wanted = int(self.gateway["spec"].get("replicas", 1))
        staying = [pod for pod in live if not is_leaving(pod)]
        if len(staying) < wanted or any(_is_new(pod, now) for pod in staying):
            return "jobs of a gateway that is gone may not be another's yet"
        return ""

    def has_gateway(self) -> bool:
        """Tell whether a gateway answers, or may yet do so if nobody makes another Deployment."""
        if self.gateway is not None and not is_leaving(self.gateway):
            return True
        return any(not is_leaving(pod) and not is_over(pod) for pod in self.gateway_pods)


def observe(cache: Cache, key: Key, spec: Spec) -> Observed:
    """Return what belongs to a pipeline, by the cache."""
    wanted: dict[tuple[str, str], list[Place]] = {}
    for stage, pool in spec.places():
        crew = FLEX if spec.flexes(pool) else stage
        wanted.setdefault((crew, pool), []).append(Place(stage, pool))
    deployments: dict[Place, Object] = {}
    strays = []
    gateway = None
    for one in cache.deployments(key):
        crew, pool = crew_of(one)
        if crew == GATEWAY:
            gateway = one
        elif (crew, pool) in wanted:
            deployments.update(dict.fromkeys(wanted[crew, pool], one))
        elif crew in _STAGED:
            strays.append(one)
    pods = cache.pods(key)
    return Observed(
        deployments,
        tuple(strays),
        gateway,
        tuple(pod for pod in pods if crew_of(pod)[0] in _STAGED),
        tuple(pod for pod in pods if crew_of(pod)[0] == GATEWAY),
    )


def _is_lost(pod: Object, now: float) -> bool:
    """Tell whether a pod should have been gone for a while: its node says nothing any more."""
    end = pod["metadata"].get("deletionTimestamp")
    return end is not None and now - seconds_of(end) > _LOST_SECONDS


def _is_new(pod: Object, now: float) -> bool:
    """Tell whether a pod was made, or has become ready, so lately that others are not yet told."""
    times = (
        pod["metadata"].get("creationTimestamp"),
        condition(pod, "Ready").get("lastTransitionTime"),
    )
    # Clocks differ: what is a little ahead was just now.
    return any(time and abs(now - seconds_of(time)) < _ADOPTION_SECONDS for time in times)


def is_prepared(pod: Object) -> bool:
    """Tell whether a pod has a node and its volumes, or cannot have them yet for want of a node."""
    if pod["status"].get("phase") != "Pending" or is_leaving(pod):
        return True
    if condition(pod, "PodScheduled").get("status") != "True":
        return True
    states = [one.get("state") or {} for one in containers(pod)]
    return any(_has_begun(state) for state in states)


def _has_begun(state: Mapping[str, object]) -> bool:
    waiting = state.get("waiting")
    if isinstance(waiting, Mapping):
        return waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing")
    return bool(state)


def crew_of(found: Object) -> tuple[str, str]:
    """Return whose a Deployment or a pod is: a stage, `flex` or `gateway`, and the pool."""
    labels = found["metadata"].get("labels") or {}
    return str(labels.get(COMPONENT_LABEL, "")), str(labels.get(POOL_LABEL, ""))


def counts(pods: Sequence[Object]) -> dict[Place, PlaceStatus]:
    """Return how many pods are what, by place; nobody has said how many there should be."""
    found: Counter[tuple[Place, str]] = Counter()
    for pod in pods:
        if is_over(pod):
            continue
        takes_work = is_ready(pod) and not is_changing(pod)
        state = "draining" if is_leaving(pod) else "ready" if takes_work else "starting"
        found[place_of(pod), state] += 1
    return {
        place: PlaceStatus(
            ready=found[place, "ready"],
            starting=found[place, "starting"],
            draining=found[place, "draining"],
        )
        for place in {place for place, _ in found}
    }


def is_changing(pod: Object) -> bool:
    """Tell whether a pod does not serve its stage yet since it had another before."""
    return CHANGING_ANNOTATION in (pod["metadata"].get("annotations") or {})


def image_of(deployment: Object) -> str:
    """Return the image of a Deployment's pods."""
    return str(deployment["spec"]["template"]["spec"]["containers"][0].get("image", ""))


def is_settled(deployment: Object) -> bool:
    """Tell whether a Deployment has become what it should be."""
    metadata, status = deployment["metadata"], deployment["status"]
    wanted = deployment["spec"].get("replicas", 0)
    return bool(
        status.get("observedGeneration", 0) >= metadata.get("generation", 0)
        and status.get("replicas", 0) == wanted
        and status.get("updatedReplicas", 0) == wanted
        and status.get("readyReplicas", 0) == wanted
    )


def cold_start(pods: Sequence[Object], before: ColdStart | None = None) -> ColdStart | None:
    """Return how long the newest stage pod that is ready took to become so.

    Args:
        pods: Of the stages.
        before: What was found the last time; it stays where no pod tells more.
    """
    started = [pod for pod in pods if _tells_of_its_start(pod)]
    if not started:
        return before
    pod = max(started, key=lambda one: str(one["metadata"]["creationTimestamp"]))
    begin = seconds_of(pod["metadata"]["creationTimestamp"])
    place = place_of(pod)
    found = ColdStart(
        stage=place.stage,
        pool=place.pool,
        scheduled=seconds_of(condition(pod, "PodScheduled")["lastTransitionTime"]) - begin,
        pulled=_since(begin, _first_start(pod)),
        loaded=_since(begin, _weights_end(pod)),
        ready=seconds_of(condition(pod, "Ready")["lastTransitionTime"]) - begin,
    )
    # The same pod, ready once more: that was no start.
    if before is not None and found == before.model_copy(update={"ready": found.ready}):
        return before
    return found


def _tells_of_its_start(pod: Object) -> bool:
    changed = CHANGED_ANNOTATION in (pod["metadata"].get("annotations") or {})
    restarted = any(one.get("restartCount") for one in pod["status"].get("containerStatuses") or ())
    times = (condition(pod, one).get("lastTransitionTime") for one in ("PodScheduled", "Ready"))
    return is_ready(pod) and all(times) and not changed and not restarted


def _since(begin: float, time: str | None) -> float | None:
    return None if time is None else max(0.0, seconds_of(time) - begin)


def _first_start(pod: Object) -> str | None:
    times = [
        state.get("startedAt")
        for one in containers(pod)
        for states in (one.get("state"), one.get("lastState"))
        for state in (states or {}).values()
    ]
    return min((time for time in times if time), default=None)


def _weights_end(pod: Object) -> str | None:
    times = [
        ((one.get("state") or {}).get("terminated") or {}).get("finishedAt")
        for one in pod["status"].get("initContainerStatuses") or ()
    ]
    return max((time for time in times if time), default=None)
