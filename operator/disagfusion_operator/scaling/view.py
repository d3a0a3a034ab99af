"""What the balancer is told of a pipeline and of the cluster; all from caches, nothing is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from disagfusion.rpc.tls import TlsSettings
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.profile import Profile
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.scaling.gateways import Door


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which pipeline."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PipelineView:
    """A pipeline as the caches have it.

    Attributes:
        key: Which one.
        uid: Of the resource: another with the same name is another pipeline.
        generation: Of its specification.
        annotations: Of the resource; the balancer keeps its intent in one.
        spec: What people wrote.
        profile: What `scaling.profile` says, as `profiles.read_profile` reads it; None without.
        deployments: Of stages that are in the specification, by place; one that is not there yet
            is missing.
        pods: Of all its stages, those that terminate included.
        autoscalers: HorizontalPodAutoscalers and ScaledObjects of its namespace.
        prometheus_url: Where load is read; empty: nowhere.
        prometheus_token: Sent with every question; empty: none.
        doors: Of gateways that answer.
        worker_tls: Of the workers' ports; None without TLS.
        hold: Why nothing is to be decided for the moment, such as a rollout; empty: no reason.
            What was decided before is still carried out.
    """

    key: Key
    uid: str
    generation: int
    annotations: Mapping[str, str]
    spec: Spec
    profile: Profile | None = None
    deployments: Mapping[Place, Object] = field(default_factory=dict)
    pods: Sequence[Object] = ()
    autoscalers: Sequence[Object] = ()
    prometheus_url: str = ""
    prometheus_token: str = field(default="", repr=False)
    doors: tuple[Door, ...] = ()
    worker_tls: TlsSettings | None = None
    hold: str = ""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What all pipelines have in common.

    Attributes:
        nodes: All nodes; none where they may not be seen: then a pool has what its capacity or the
            budget says, and what cannot be scheduled there is learned.
        nodes_version: Another number whenever one of them is another.
        pipelines: All whose specification can be read: pools are divided among them only when each
            was seen.
    """

    nodes: Sequence[Object]
    nodes_version: int
    pipelines: Collection[Key]
