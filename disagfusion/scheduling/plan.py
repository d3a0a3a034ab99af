"""The plan: how many replicas of each stage on each pool, and why."""

from __future__ import annotations

from pydantic import ConfigDict

from disagfusion.scheduling.document import Count, Document, NonNegative, PositiveCount


class Group(Document):
    """Replicas that hold the same stages.

    Attributes:
        stages: Which live together in a replica, in the order of the pipeline.
        pool: Where.
        parallel_degree: Accelerators of one replica.
        replicas: How many.
    """

    stages: tuple[str, ...]
    pool: str
    parallel_degree: PositiveCount
    replicas: PositiveCount


class RunnerUp(Document):
    """The best plan with another bottleneck, or with another pool for some stage.

    Attributes:
        replicas: Stage → pool → replicas.
        throughput: Jobs per second.
        cost_per_hour: Of all accelerators used.
        reason: Why it lost.
    """

    replicas: dict[str, dict[str, Count]]
    throughput: NonNegative
    cost_per_hour: NonNegative
    reason: str


class Plan(Document):
    """How many replicas of each stage run on each pool.

    Attributes:
        replicas: Stage → pool → replicas; pools without any are left out.
        groups: The same as replicas of sets of stages.
        throughput: Jobs per second of the slowest stage, for the demanded mix.
        bottleneck: That stage.
        capacity: Jobs per second of each stage.
        accelerators: How many are used.
        cost_per_hour: Of all of them.
        moves: Replicas started and stopped to get there from the replicas that run.
        meets_demand: Whether the throughput covers rate and headroom; None where no rate was given.
        reason: Why this plan, in a sentence.
        proven: Whether no better plan exists for certain; false if the search ended at its bound.
        runner_up: The best plan of another kind; None if there is no other.
    """

    replicas: dict[str, dict[str, Count]]
    groups: tuple[Group, ...]
    throughput: NonNegative
    bottleneck: str
    capacity: dict[str, NonNegative]
    accelerators: Count
    cost_per_hour: NonNegative
    moves: Count
    meets_demand: bool | None = None
    reason: str
    proven: bool
    runner_up: RunnerUp | None = None


class Running(Document):
    """Replicas that run; a plan's file says it as well.

    Attributes:
        replicas: Stage → pool → replicas.
    """

    model_config = ConfigDict(extra="ignore")

    replicas: dict[str, dict[str, Count]]
