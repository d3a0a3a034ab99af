"""What the operator says of a pipeline."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, model_validator

from disagfusion_operator.api.base import Listing, Part

_Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class Condition(enum.StrEnum):
    """Types of conditions; `meaning` says where one is True."""

    meaning: str

    READY = "Ready", "Every stage and the gateway can do a job."
    PROGRESSING = "Progressing", "Something changes: a start, a rollout, a rebalance."
    DEGRADED = "Degraded", "Something that should run does not."
    SCALING_ACTIVE = (
        "ScalingActive",
        "The operator decides the number of replicas and can carry it out.",
    )
    SCALING_LIMITED = (
        "ScalingLimited",
        "A bound, the budget or a pool without room keeps it from what it would do.",
    )
    METRICS_AVAILABLE = "MetricsAvailable", "Prometheus answers with what is needed."
    CONFLICT = (
        "Conflict",
        "Another autoscaler acts on one of the Deployments: the operator leaves that one alone.",
    )

    def __new__(cls, value: str, meaning: str) -> Condition:
        """Return a type with its meaning."""
        one = str.__new__(cls, value)
        one._value_ = value
        one.meaning = meaning
        return one


class ConditionStatus(Part):
    """As of every Kubernetes resource.

    Attributes:
        type: What it is about.
        status: Whether it holds.
        reason: One word for programs.
        message: A sentence for people.
        observed_generation: Of the resource that it is about.
        last_transition_time: When `status` changed last.
    """

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int | None = None
    last_transition_time: _Time


class PlaceStatus(Part):
    """Replicas of a stage on one pool.

    Attributes:
        desired: As many as there should be.
        ready: Take work.
        starting: Are scheduled, pull, load.
        draining: Finish what they have.
    """

    desired: int = 0
    ready: int = 0
    starting: int = 0
    draining: int = 0


class StageStatus(Part):
    """Replicas of a stage.

    Attributes:
        desired: On all pools.
        ready: On all pools.
        draining: On all pools.
        summary: Ready of desired replicas, such as 2/3; it follows from the other fields.
        image: That its pods have.
        pools: By pool.
    """

    desired: int = 0
    ready: int = 0
    draining: int = 0
    summary: str = ""
    image: str = ""
    pools: dict[str, PlaceStatus] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _summarize(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return values | {"summary": f"{values.get('ready', 0)}/{values.get('desired', 0)}"}


class DecisionStatus(Part):
    """What the balancer decided last that changed something, or why it changes nothing.

    Attributes:
        time: When.
        reason: One word for programs.
        message: A sentence with figures.
    """

    time: _Time
    reason: str
    message: str = ""


class ColdStart(Part):
    """How long the newest pod that is ready took to become so, in seconds since it was made.

    Attributes:
        stage: Of the pod.
        pool: Of the pod.
        scheduled: Until a node was found.
        pulled: Until its containers ran.
        loaded: Until weights were there.
        ready: Until it took work.
    """

    stage: str
    pool: str
    scheduled: float
    pulled: float | None = None
    loaded: float | None = None
    ready: float


class Status(Part):
    """A pipeline as it is.

    Attributes:
        observed_generation: Of the specification that this is about.
        state: One word: Pending, Loading, Ready, Degraded, Paused, Idle, Draining, Invalid.
        conditions: See `Condition`.
        stages: By name.
        ratio: Ready replicas, such as 1:6:1.
        bottleneck: The stage that limits the throughput.
        throughput: Jobs per second by Prometheus, over its window.
        backlog: Unfinished jobs.
        decision: The balancer's last.
        cold_start: Of the newest pod that is ready.
        endpoint: Where clients in the cluster reach the gateway.
    """

    observed_generation: int = 0
    state: str = "Pending"
    conditions: Annotated[tuple[ConditionStatus, ...], Listing("type")] = ()
    stages: dict[str, StageStatus] = Field(default_factory=dict)
    ratio: str = ""
    bottleneck: str = ""
    throughput: str = ""
    backlog: int | None = None
    decision: DecisionStatus | None = None
    cold_start: ColdStart | None = None
    endpoint: str = ""
