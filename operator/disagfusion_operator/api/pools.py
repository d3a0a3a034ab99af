"""Node pools: accelerators of one kind."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from disagfusion.scheduling.document import PositiveCount
from disagfusion_operator.api.base import Free, Part, Quantity, Rule


class Toleration(Part):
    """As of a pod.

    Attributes:
        key: Of the taint; empty for every one.
        operator: Exists or Equal.
        value: Of the taint.
        effect: NoSchedule, PreferNoSchedule or NoExecute; empty for each.
        toleration_seconds: How long NoExecute is tolerated.
    """

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None


class Accelerator(Part):
    """What a replica asks the node for.

    Attributes:
        resource: Extended resource, such as `nvidia.com/gpu`.
        count: Of one replica.
    """

    resource: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=317)] = (
        "nvidia.com/gpu"
    )
    count: PositiveCount = 1


class Pool(Part):
    """Nodes with accelerators of one kind.

    Attributes:
        node_selector: Labels of its nodes.
        tolerations: Of the taints on them.
        runtime_class_name: RuntimeClass of the pods.
        accelerator: What a replica asks for; none: it computes on the processor.
        device: torch's name of the device; "cuda" with an accelerator, else "cpu".
        memory: Of one accelerator; where it is not given, everything is taken to fit.
        cost_per_hour: Of one accelerator, in the currency that all pools share.
        speed: Over the profile's, where the profile does not know the pool.
        capacity: Accelerators that may be used at most; all that the nodes have where not given.
        provisioning: Autoscaled where pods that wait for nodes are the normal way to get them.
        provisioning_timeout_seconds: After which a pod that waits counts as failed; the pool is
            taken to be full for a while then.
    """

    RULES: ClassVar = (
        Rule(
            "!has(self.device) || !self.device.startsWith('cuda') || has(self.accelerator)",
            "device cuda needs accelerator, so that a node with one is chosen",
            ".device",
        ),
    )

    node_selector: Annotated[dict[str, str], Field(max_length=16)] = Field(default_factory=dict)
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None
    accelerator: Accelerator | None = None
    device: Annotated[str, Field(pattern=r"^(cpu|(cuda|xpu|hpu|npu)(:\d{1,3})?)$")] | None = None
    memory: Quantity | None = None
    cost_per_hour: Quantity = "0"
    speed: Quantity = "1"
    capacity: Annotated[int, Field(ge=0)] | None = None
    provisioning: Literal["Static", "Autoscaled"] = "Static"
    provisioning_timeout_seconds: Annotated[int, Field(ge=10, le=7200)] | None = None

    @property
    def accelerators(self) -> int:
        """That a replica takes; a replica on the processor counts as one."""
        return self.accelerator.count if self.accelerator else 1


class Resources(Part):
    """Of a container.

    Attributes:
        requests: What is set aside for it.
        limits: The most that it may take.
    """

    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


class PodTemplate(Part):
    """What is laid over the pods that the operator makes.

    Attributes:
        labels: Further labels.
        annotations: Further annotations.
        spec: Fields of a PodSpec, merged as `kubectl patch` merges them; what the operator needs
            to keep its promises stays: names, ports, probes, security context.
    """

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    spec: Free = Field(default_factory=dict)
