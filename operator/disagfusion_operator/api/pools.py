"""Node pools: accelerators of one kind."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from disagfusion.scheduling.document import PositiveCount
from disagfusion_operator.api.base import (
    Matches,
    ObjectName,
    Part,
    Quantity,
    ResourceName,
    Rule,
)
from disagfusion_operator.api.pods import Worker


class Toleration(Part):
    """As of a pod.

    Attributes:
        key: Of the taint; empty for every one.
        operator: Exists or Equal.
        value: Of the taint.
        effect: NoSchedule, PreferNoSchedule or NoExecute; empty for each.
        toleration_seconds: How long NoExecute is tolerated.
    """

    RULES: ClassVar = (
        Rule(
            "self.operator == 'Equal' || !has(self.value) || self.value == ''",
            "operator Exists takes no value",
            ".value",
        ),
        Rule(
            "self.operator == 'Exists' || has(self.key) && self.key != ''",
            "without a key, operator must be Exists: every taint is tolerated then",
            ".key",
        ),
        Rule(
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            "tolerationSeconds needs effect NoExecute",
            ".tolerationSeconds",
        ),
    )

    key: Annotated[str, Field(max_length=317)] = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: Annotated[str, Field(max_length=63)] = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None


class Accelerator(Part):
    """What a replica asks the node for.

    Attributes:
        resource: Extended resource, such as `nvidia.com/gpu`.
        count: Of one replica.
    """

    resource: ResourceName = "nvidia.com/gpu"
    count: PositiveCount = 1


class Flex(Worker):
    """Pods that change their stage in place: their image and weights are those of all stages."""


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
        capacity: Accelerators that may be used at most, or replicas on the processor. Where it is
            not given: all that the nodes have; on the processor, as the budget or minReplicas say.
        provisioning: Autoscaled where pods that wait for nodes are the normal way to get them: the
            pool is taken to have its capacity, or else the budgets of the pipelines that use it, or
            their minima, before the nodes are there.
        provisioning_timeout_seconds: After which a pod that waits for a node is taken back, and the
            pool counts as full for a while; 60 for Static and 900 for Autoscaled.
        flex: One Deployment for all stages that may run here, whose pods change their stage in
            place: faster than pods that end and start, for more memory and larger images. What
            stages say of their pods does not hold here. A Deployment for each stage where not
            given.
    """

    RULES: ClassVar = (
        Rule(
            "!has(self.device) || !self.device.startsWith('cuda') || has(self.accelerator)",
            "device cuda needs accelerator, so that a node with one is chosen",
            ".device",
        ),
        Rule(
            "quantity(string(self.speed)).isGreaterThan(quantity('0'))",
            "speed must be more than 0",
            ".speed",
        ),
    )

    node_selector: Annotated[dict[str, str], Field(max_length=16)] = Field(default_factory=dict)
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    runtime_class_name: ObjectName | None = None
    accelerator: Accelerator | None = None
    device: (
        Annotated[
            str,
            Field(max_length=8),
            Matches(
                r"^(cpu|(cuda|xpu|hpu|npu)(:\d{1,3})?)$",
                "expected cpu, cuda, xpu, hpu or npu, with an index or without: cuda:1",
            ),
        ]
        | None
    ) = None
    memory: Quantity | None = None
    cost_per_hour: Quantity = "0"
    speed: Quantity = "1"
    capacity: Annotated[int, Field(ge=0)] | None = None
    provisioning: Literal["Static", "Autoscaled"] = "Static"
    provisioning_timeout_seconds: Annotated[int, Field(ge=10, le=7200)] | None = None
    flex: Flex | None = None

    @property
    def accelerators(self) -> int:
        """That a replica takes; a replica on the processor counts as one."""
        return self.accelerator.count if self.accelerator else 1
