"""What keeps pods from doing their work, as pods, Deployments and workers tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from disagfusion_operator.desired.names import (
    COMPONENT_LABEL,
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
    is_ready,
    seconds_of,
    waiting_reason,
)
from disagfusion_operator.reconcile.gateways import WorkerReport

_STUCK_SECONDS = 120.0
_MESSAGE = 400


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not run.

    Attributes:
        component: A stage, `gateway`, or `flex` for what is common to pods of several stages.
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
        if is_leaving(pod):
            continue
        problem = _of_pod(pod, now) or _of_worker(pod, reports.get(pod["metadata"]["name"]))
        if problem:
            found.setdefault((problem.component, problem.pool, problem.reason), problem)
    return sorted(found.values(), key=lambda one: (not one.serious, str(one)))


def _of_deployment(deployment: Object) -> Problem | None:
    refused = condition(deployment, "ReplicaFailure")
    if refused.get("status") != "True":
        return None
    message = f"no pods are made: {refused.get('message', '')}"
    return _problem(deployment, refused.get("reason") or "FailedCreate", message)


def _of_pod(pod: Object, now: float) -> Problem | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        message = scheduled.get("message") or "no node has been found"
        return _problem(pod, "Unschedulable", message, serious=False)
    status = pod["status"]
    if status.get("phase") == "Failed":
        message = status.get("message") or status.get("reason") or "a pod failed"
        return _problem(pod, status.get("reason") or "PodFailed", message, serious=False)
    init = status.get("initContainerStatuses") or []
    for one in containers(pod):
        if problem := _of_container(pod, one, init=one in init):
            return problem
    return _stuck(pod, now)


def _of_container(pod: Object, status: Mapping[str, Any], *, init: bool) -> Problem | None:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_REASONS:
        text = f"the image {status.get('image', '')} cannot be had: {message or reason}"
        return _problem(pod, "ImageUnavailable", text)
    if reason in CONFIGURATION_REASONS:
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
    reasons = {waiting_reason(one) for one in containers(pod)}
    creating = reasons and reasons <= {"ContainerCreating", "PodInitializing"}
    since = condition(pod, "PodScheduled").get("lastTransitionTime")
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
        # Of a pod that changes its stage, the one that it has.
        labels.get(STAGE_LABEL) or labels.get(COMPONENT_LABEL, ""),
        labels.get(POOL_LABEL, ""),
        reason,
        message[:_MESSAGE],
        serious,
    )
