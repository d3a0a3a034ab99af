"""What keeps pods from doing their work, as pods, Deployments and workers tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from disagfusion_operator.desired.names import (
    COMPONENT_LABEL,
    POOL_LABEL,
    VERSION_ANNOTATION,
)
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.reconcile.gateways import WorkerReport

_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CONFIGURATION = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_STUCK_SECONDS = 120.0
_MESSAGE = 400


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not run.

    Attributes:
        component: A stage or `gateway`.
        pool: Of a stage.
        reason: One word for programs.
        message: A sentence for people.
        serious: Whether somebody has to do something; otherwise it may pass by itself.
    """

    component: str
    pool: str
    reason: str
    message: str
    serious: bool = True

    def __str__(self) -> str:
        """Return it as people read it."""
        where = f"{self.component} on {self.pool}" if self.pool else self.component
        return f"{where}: {self.message}"


def find(
    pods: Iterable[Object],
    deployments: Iterable[Object],
    workers: Sequence[WorkerReport],
    now: float,
) -> list[Problem]:
    """Return all problems, serious ones first, each kind once for a component and pool."""
    reports = {worker.name: worker for worker in workers}
    found: dict[tuple[str, str, str], Problem] = {}
    for deployment in deployments:
        if problem := _of_deployment(deployment):
            found.setdefault((problem.component, problem.pool, problem.reason), problem)
    for pod in pods:
        if "deletionTimestamp" in pod["metadata"]:
            continue
        problem = _of_pod(pod, now) or _of_worker(pod, reports.get(pod["metadata"]["name"]))
        if problem:
            found.setdefault((problem.component, problem.pool, problem.reason), problem)
    return sorted(found.values(), key=lambda one: (not one.serious, str(one)))


def is_ready(pod: Object) -> bool:
    """Tell whether a pod takes work."""
    ready = condition(pod, "Ready")
    return bool(ready and ready["status"] == "True") and not is_leaving(pod)


def is_leaving(pod: Object) -> bool:
    """Tell whether a pod has been asked to end."""
    return "deletionTimestamp" in pod["metadata"]


def is_over(pod: Object) -> bool:
    """Tell whether a pod holds nothing any more."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def condition(found: Object, kind: str) -> Mapping[str, Any] | None:
    """Return a condition of an object."""
    for one in found.get("status", {}).get("conditions") or ():
        if one.get("type") == kind:
            return dict(one)
    return None


def version_of(found: Object) -> str:
    """Return the version of model and images that a pod, or a pod template, has."""
    return str((found["metadata"].get("annotations") or {}).get(VERSION_ANNOTATION, ""))


def seconds_of(text: str) -> float:
    """Return a time of Kubernetes as Unix seconds."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _of_deployment(deployment: Object) -> Problem | None:
    refused = condition(deployment, "ReplicaFailure")
    if refused is None or refused["status"] != "True":
        return None
    message = f"no pods are made: {refused.get('message', '')}"
    return _problem(deployment, refused.get("reason") or "FailedCreate", message)


def _of_pod(pod: Object, now: float) -> Problem | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        message = scheduled.get("message") or "no node has been found"
        return _problem(pod, "Unschedulable", message, serious=False)
    status = pod["status"]
    if status.get("phase") == "Failed":
        message = status.get("message") or status.get("reason") or "a pod failed"
        return _problem(pod, status.get("reason") or "PodFailed", message, serious=False)
    init = status.get("initContainerStatuses") or []
    for one in (*init, *(status.get("containerStatuses") or ())):
        if problem := _of_container(pod, one, init=one in init):
            return problem
    return _stuck(pod, now)


def _of_container(pod: Object, status: Mapping[str, Any], *, init: bool) -> Problem | None:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _PULL:
        text = f"the image {status.get('image', '')} cannot be had: {message or reason}"
        return _problem(pod, "ImageUnavailable", text)
    if reason in _CONFIGURATION:
        return _problem(pod, reason, message or reason)
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    if not ended or ended.get("exitCode") == 0 or status.get("ready"):
        return None
    told = str(ended.get("message") or "").strip().splitlines()
    text = told[-1] if told else f"it ended with status {ended.get('exitCode')}"
    if ended.get("reason") == "OOMKilled":
        return _problem(pod, "OutOfMemory", "it needed more memory than its limit")
    if init:
        return _problem(pod, "WeightsUnavailable", text)
    return _problem(pod, "Crashed", text, serious=reason == "CrashLoopBackOff")


def _stuck(pod: Object, now: float) -> Problem | None:
    """Return that containers are not made although the pod has a node: volumes, most often."""
    statuses = [
        *(pod["status"].get("initContainerStatuses") or ()),
        *(pod["status"].get("containerStatuses") or ()),
    ]
    creating = statuses and all(
        ((one.get("state") or {}).get("waiting") or {}).get("reason")
        in ("ContainerCreating", "PodInitializing")
        for one in statuses
    )
    scheduled = condition(pod, "PodScheduled") or {}
    since = scheduled.get("lastTransitionTime")
    if not creating or not since or now - seconds_of(since) < _STUCK_SECONDS:
        return None
    message = "its containers are not made; the pod's events say why, most often a volume"
    return _problem(pod, "NotStarted", message)


def _of_worker(pod: Object, worker: WorkerReport | None) -> Problem | None:
    if worker is None or worker.takes_work or not worker.reason or is_ready(pod):
        return None
    return _problem(pod, "WorkerNotReady", worker.reason)


def _problem(about: Object, reason: str, message: str, *, serious: bool = True) -> Problem:
    labels = about["metadata"].get("labels") or {}
    return Problem(
        labels.get(COMPONENT_LABEL, ""),
        labels.get(POOL_LABEL, ""),
        reason,
        message[:_MESSAGE],
        serious,
    )
