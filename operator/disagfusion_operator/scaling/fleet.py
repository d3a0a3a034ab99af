"""The replicas of a pipeline as its pods and Deployments tell."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.observation import Replicas
from disagfusion_operator.desired.names import (
    CHANGED_ANNOTATION,
    CHANGING_ANNOTATION,
    COMPONENT_LABEL,
    FLEX,
    POOL_LABEL,
    STAGE_LABEL,
)
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.k8s.states import (
    CONFIGURATION_REASONS,
    IMAGE_REASONS,
    condition,
    containers,
    is_leaving,
    is_over,
    is_ready,
    seconds_of,
    waiting_reason,
)
from disagfusion_operator.scaling.flex import apportioned, is_flex, mine, together

_BROKEN = ("CrashLoopBackOff", *IMAGE_REASONS, *CONFIGURATION_REASONS)


class Phase(enum.Enum):
    """What a pod is about."""

    STARTING = enum.auto()
    READY = enum.auto()
    DRAINING = enum.auto()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that holds accelerators, or asks for them.

    Attributes:
        name: Which is also the worker's.
        uid: Of this pod.
        place: Where it serves.
        phase: What it is about.
        created: Unix seconds.
        ready_at: When it became ready, in Unix seconds; None: it is not.
        node: Where it runs; empty: nowhere yet.
        unschedulable: Whether no node has room for it.
        broken: Why its containers cannot run; empty: they can.
        failing: Whether it is not ready and will not be without somebody's help: its containers
            cannot run, or ended before it was ready.
        cost: Of its deletion, as it was written on it; None: nothing was.
        crew: Whose it is: a stage, or `flex`; empty where nothing says it.
        address: Of its network; empty before its containers have begun.
        changes_from: The stage that it had before, while it does not serve its own yet; None: it
            does, or starts with it.
        changed_at: When it got its stage, in Unix seconds; None: it began with it.
        version: Of the object.
        ends_by: When it is to be gone, in Unix seconds; None: it has not been asked to end.
    """

    name: str
    uid: str
    place: Place
    phase: Phase
    created: float
    ready_at: float | None = None
    node: str = ""
    unschedulable: bool = False
    broken: str = ""
    failing: bool = False
    cost: str | None = None
    crew: str = ""
    address: str = ""
    changes_from: str | None = None
    changed_at: float | None = None
    version: int = 0
    ends_by: float | None = None

    @property
    def begun(self) -> float:
        """Since when it is to serve its stage, in Unix seconds."""
        return self.created if self.changed_at is None else self.changed_at


@dataclass(frozen=True, slots=True)
class Refusal:
    """No pods are made, since a quota or a policy refuses them.

    Attributes:
        since: Unix seconds.
        message: The API server's.
    """

    since: float
    message: str


@dataclass(frozen=True, slots=True)
class Account:
    """The replicas of a place.

    Attributes:
        asked: That the Deployment asks for.
        live: Pods that do not terminate.
        leaving: Pods that do.
        refusal: Why pods are missing.
    """

    asked: int
    live: tuple[Pod, ...] = ()
    leaving: tuple[Pod, ...] = ()
    refusal: Refusal | None = None

    @property
    def ready(self) -> int:
        """Pods that take work."""
        return sum(one.phase is Phase.READY for one in self.live)

    @property
    def held(self) -> int:
        """Replicas that hold accelerators, or will without anything more being asked."""
        return max(self.asked, len(self.live)) + len(self.leaving)

    @property
    def placed(self) -> int:
        """Pods that have a node and stay."""
        return sum(bool(one.node) for one in self.live)

    def replicas(
        self, desired: int, load_seconds: float, now: float, *, change_seconds: float = 0.0
    ) -> Replicas:
        """Return what a balancer is told.

        What is still to be made counts as starting, what is still to be ended as draining; pods
        that are not ready are ended first.

        Args:
            desired: As many as there should be.
            load_seconds: From a pod's creation until it takes work, as predicted.
            now: Unix seconds.
            change_seconds: The same from a change of stage in place.
        """

        def available_at(pod: Pod) -> float:
            started = pod.created + load_seconds
            return max(now, started, pod.begun + change_seconds if pod.changes_from else started)

        starting = [one for one in self.live if one.phase is Phase.STARTING]
        excess = max(0, len(self.live) - desired)
        ready = self.ready - max(0, excess - len(starting))
        starting = starting[: max(0, len(starting) - excess)]
        hopeful = [one for one in starting if one.node and not one.broken]
        return Replicas(
            ready=ready,
            starting=len(starting) + max(0, desired - len(self.live)),
            draining=len(self.leaving) + excess,
            starting_since=min((one.begun for one in starting), default=None),
            available_at=tuple(sorted(map(available_at, hopeful))),
        )


def read_accounts(
    pods: Iterable[Object],
    deployments: Mapping[Place, Object],
    asked: Mapping[Place, int],
    wanted: Mapping[Place, int] | None = None,
    current: Callable[[Iterable[Pod]], Iterable[Pod]] = lambda pods: pods,
) -> dict[Place, Account]:
    """Return the account of every place that has a Deployment or a pod.

    Args:
        pods: Of all stages.
        deployments: By place; one whose pods change their stage is there for several.
        asked: What they ask for, where that is known better than from the objects.
        wanted: Replicas that there should be: a Deployment does not say which stages its pods are
            to have.
        current: Returns pods with what was written and cannot be seen on them yet.
    """
    live: dict[Place, list[Pod]] = {place: [] for place in deployments}
    leaving: dict[Place, list[Pod]] = {place: [] for place in deployments}
    for pod in current(read_pods(pods)):
        ends = pod.phase is Phase.DRAINING or _is_stray(pod, deployments.get(pod.place))
        (leaving if ends else live).setdefault(pod.place, []).append(pod)
    counts = {
        place: asked[place] if place in asked else asked_of(one)
        for place, one in deployments.items()
    }
    for places in together(deployments).values():
        if is_flex(deployments[places[0]]):
            there = {place: len(live[place]) for place in places}
            counts |= apportioned(counts[places[0]], there, mine(places, wanted or {}))
    return {
        place: Account(
            counts.get(place, 0),
            tuple(live.get(place, ())),
            tuple(leaving.get(place, ())),
            _refusal(deployments.get(place, {})),
        )
        for place in dict.fromkeys((*live, *leaving))
    }


def _is_stray(pod: Pod, deployment: Object | None) -> bool:
    """Tell whether a pod is of a Deployment that is taken away: its pool has become another."""
    if deployment is None or not pod.crew:
        return False
    labels = deployment["metadata"].get("labels") or {}
    return bool(labels.get(COMPONENT_LABEL, pod.crew) != pod.crew)


def asked_of(deployment: Object) -> int:
    """Return the replicas that a Deployment asks for; none where there is none."""
    spec = deployment.get("spec")
    return 0 if spec is None else int(spec.get("replicas", 1))


def read_pods(pods: Iterable[Object]) -> Sequence[Pod]:
    """Return the pods that have not come to their end, oldest first."""
    found = [
        _read(pod)
        for pod in pods
        if not is_over(pod) and _has_stage(pod["metadata"].get("labels") or {})
    ]
    return sorted(found, key=lambda one: (one.created, one.name))


def _has_stage(labels: Mapping[str, str]) -> bool:
    return STAGE_LABEL in labels or labels.get(COMPONENT_LABEL) == FLEX


def _read(pod: Object) -> Pod:
    metadata, spec = pod["metadata"], pod.get("spec", {})
    labels, annotations = metadata["labels"], metadata.get("annotations") or {}
    changes_from = annotations.get(CHANGING_ANNOTATION)
    phase = Phase.STARTING
    if is_leaving(pod):
        phase = Phase.DRAINING
    elif is_ready(pod) and changes_from is None:
        phase = Phase.READY
    scheduled = condition(pod, "PodScheduled")
    created, ends_by = metadata.get("creationTimestamp"), metadata.get("deletionTimestamp")
    ready_at = condition(pod, "Ready").get("lastTransitionTime")
    broken = _broken(pod)
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        place=place_of(pod),
        phase=phase,
        created=seconds_of(created) if created else 0.0,
        ready_at=seconds_of(ready_at) if phase is Phase.READY and ready_at else None,
        node=spec.get("nodeName") or "",
        unschedulable=scheduled.get("status") == "False"
        and scheduled.get("reason") == "Unschedulable",
        broken=broken,
        failing=not is_ready(pod) and (bool(broken) or _ended_early(pod)),
        cost=annotations.get(DELETION_COST),
        crew=labels.get(COMPONENT_LABEL, ""),
        address=_address(pod),
        changes_from=changes_from,
        changed_at=_number(annotations.get(CHANGED_ANNOTATION)),
        version=int(_number(metadata.get("resourceVersion")) or 0),
        ends_by=seconds_of(ends_by) if ends_by else None,
    )


def place_of(pod: Object) -> Place:
    """Return where a pod serves, by its labels."""
    labels = pod["metadata"].get("labels") or {}
    return Place(labels.get(STAGE_LABEL, ""), labels.get(POOL_LABEL, ""))


def _address(pod: Object) -> str:
    status = pod.get("status", {})
    return str(status.get("podIP") or "") if status.get("phase") == "Running" else ""


def _number(text: str | None) -> float | None:
    """Return a number; None where there is none, or people have written something else."""
    try:
        found = math.nan if text is None else float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""Annotation by which a ReplicaSet chooses among pods that are alike otherwise: least first."""


def _broken(pod: Object) -> str:
    reasons = map(waiting_reason, containers(pod))
    return next((reason for reason in reasons if reason in _BROKEN), "")


def _ended_early(pod: Object) -> bool:
    """Tell whether a container that was started again had ended without its pod being ready."""
    changed = condition(pod, "Ready").get("lastTransitionTime")
    since = seconds_of(changed) if changed else 0.0
    for one in pod.get("status", {}).get("containerStatuses") or ():
        ended = (one.get("lastState") or {}).get("terminated") or {}
        started = ended.get("startedAt")
        # Since it was started, the pod has neither become ready nor ceased to be.
        if started and since <= seconds_of(started):
            return True
    return False


def _refusal(deployment: Object) -> Refusal | None:
    found = condition(deployment, "ReplicaFailure")
    if found.get("status") != "True":
        return None
    since = found.get("lastTransitionTime") or found.get("lastUpdateTime")
    return Refusal(seconds_of(since) if since else 0.0, found.get("message", ""))
