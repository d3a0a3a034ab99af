"""What a small cluster in memory consists of: pipelines, their pods and jobs, and how they are
specified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from disagfusion_operator.api.base import STAGES
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.scaling.view import Key

from disagfusion.scheduling.decision import Place

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
    ends_by: float | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    unschedulable: bool = False
    waiting_reason: str = ""
    crew: str = ""
    serves: str = ""
    changes_at: float | None = None
    version: int = 1

    def manifest(self, now: float) -> Object:
        ready = self.works(now) and self.leaves_at is None
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
            "resourceVersion": str(self.version),
            "creationTimestamp": stamp(self.created),
            "annotations": dict(self.annotations),
            "labels": {
                "disagfusion.dev/pipeline": self.key.name,
                "disagfusion.dev/stage": self.place.stage,
                "disagfusion.dev/pool": self.place.pool,
            },
        }
        if self.crew:
            metadata["labels"]["app.kubernetes.io/component"] = self.crew
        if self.leaves_at is not None:
            asked = self.leaves_at if self.ends_by is None else self.ends_by
            metadata["deletionTimestamp"] = stamp(asked)
        status: dict[str, Any] = {
            "phase": "Running" if self.node else "Pending",
            "conditions": conditions,
        }
        if self.node:
            status["podIP"] = self.name
        if self.waiting_reason:
            status["containerStatuses"] = [{"state": {"waiting": {"reason": self.waiting_reason}}}]
        limits = {"cpu": "1", "nvidia.com/gpu": str(self.accelerators)}
        spec: Object = {"containers": [{"resources": {"limits": limits}}]}
        spec |= {"nodeName": self.node} if self.node else {}
        return {"metadata": metadata, "spec": spec, "status": status}

    def works(self, now: float) -> bool:
        """Whether it has started, and does not load another stage."""
        started = self.ready_at is not None and self.ready_at <= now
        return started and (self.changes_at is None or self.changes_at <= now)


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
