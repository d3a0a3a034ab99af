"""What people may say of the pods of stages."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from disagfusion_operator.api.base import Free, Image, Labels, Part, Quantity, Rule


class Resources(Part):
    """Of a container.

    Attributes:
        requests: What is set aside for it.
        limits: The most that it may take.
    """

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = Field(default_factory=dict)
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = Field(default_factory=dict)


class PodTemplate(Part):
    """What is laid over the pods that the operator makes.

    Attributes:
        labels: Further labels.
        annotations: Further annotations.
        spec: Fields of a PodSpec, merged as `kubectl patch` merges them; what the operator needs
            to keep its promises stays: names, images, ports, probes, security context, the volumes
            of model and profile, and the variables that decide what is computed.
    """

    RULES: ClassVar = (
        Rule(
            "!has(self.labels) || self.labels.all(key, !key.startsWith('disagfusion.dev/') &&"
            " !key.startsWith('app.kubernetes.io/'))",
            "labels of disagfusion.dev/ and app.kubernetes.io/ are the operator's,"
            " take another prefix",
            ".labels",
        ),
    )

    labels: Labels = Field(default_factory=dict)
    annotations: Labels = Field(default_factory=dict)
    spec: Free = Field(default_factory=dict)


class Worker(Part):
    """Pods that do the work of stages.

    Attributes:
        image: Of its pods; the release's own where not given.
        resources: Of each pod's container; the pool's accelerator is added.
        threads: Of the processor's operations in the engine.
        slots: Inputs that may be in a pod at a time, the one that is computed included: 2 is a
            double buffer, more bridges greater jitter.
        send_slots: Outputs on their way to one peer at a time.
        shared_memory: Memory for inputs and outputs: nine tenths of it are the arena that holds
            them, in a file that is in memory alone. What of it is used counts against the limit
            in `resources`. The pod's /dev/shm may become as large.
        pod_template: Laid over the pods.
    """

    image: Image | None = None
    resources: Resources = Field(default_factory=Resources)
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    slots: Annotated[int, Field(ge=1, le=64)] = 2
    send_slots: Annotated[int, Field(ge=1, le=64)] = 2
    shared_memory: Quantity = "1Gi"
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
