"""The DiffusionPipeline: what people write."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from disagfusion_operator.api.base import (
    SET,
    STAGES,
    ObjectName,
    Part,
    PoolName,
    ResourceName,
    Rule,
)
from disagfusion_operator.api.gateway import Gateway
from disagfusion_operator.api.model import Model, Options
from disagfusion_operator.api.pools import Pool
from disagfusion_operator.api.scaling import Scaling
from disagfusion_operator.api.stages import Stages


class Tls(Part):
    """Mutual TLS between all processes of the pipeline.

    Attributes:
        secret_name: Secret with `tls.crt`, `tls.key` and `ca.crt`; all processes present the same
            certificate, whose name is `serverName`.
        server_name: DNS name in the certificate.
    """

    secret_name: ObjectName
    server_name: Annotated[str, Field(min_length=1, max_length=253)]


class Rdma(Part):
    """Network adapters that move tensors without the processor.

    Attributes:
        resource: Extended resource that a stage pod asks for, such as `rdma/hca_shared_devices_a`.
        count: Of it.
    """

    resource: ResourceName
    count: Annotated[int, Field(ge=1)] = 1


class Transport(Part):
    """How tensors move from stage to stage.

    Attributes:
        backend: UCX, or plain TCP.
        tls: Encrypts and authenticates; UCX itself cannot, so that it needs the TCP backend.
        rdma: Lets UCX use RDMA. Its memory is locked: the nodes' container runtime has to allow
            that (RLIMIT_MEMLOCK). The capability IPC_LOCK, which stage pods get, alone has no
            effect on a process that is not root's.
    """

    RULES: ClassVar = (
        Rule(
            "!has(self.rdma) || self.backend == 'UCX'",
            "rdma needs backend UCX",
            ".rdma",
        ),
        Rule(
            "!has(self.tls) || self.backend == 'TCP'",
            "tls needs backend TCP: UCX does not encrypt",
            ".tls",
        ),
    )

    backend: Literal["UCX", "TCP"] = "UCX"
    tls: Tls | None = None
    rdma: Rdma | None = None


class Deletion(Part):
    """What happens to jobs when the pipeline is deleted.

    Attributes:
        drain_seconds: For so long accepted jobs may finish, while no new ones are; the rest end
            as CANCELLED.
    """

    drain_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300


def _rule_of_stage(stage: str) -> Rule:
    pools = f"self.stages.{stage}.pools"
    return Rule(
        f"!has({pools}) || {pools}.all(name, name in self.pools)",
        f"stages.{stage}.pools may only name pools that are in spec.pools",
        f".stages.{stage}.pools",
        f"'there is no pool ' + {pools}.filter(name, !(name in self.pools))[0] + ' in spec.pools'",
    )


def _may_run(stage: str) -> str:
    pools = f"self.stages.{stage}.pools"
    return f"(!has({pools}) || size({pools}) == 0 || name in {pools} ? 1 : 0)"


class Spec(Part):
    """A pipeline as it should be.

    Attributes:
        model: What is served.
        dtype: Of weights and computation.
        options: How diffusers loads and runs it.
        pools: By name: where stages may run. Pools of several pipelines that select the same nodes
            and resource are one pool, whatever their names, and are divided among the pipelines.
        stages: The three stages.
        scaling: How many replicas there are.
        transport: How tensors move.
        gateway: The front door.
        deletion: What happens to jobs in the end.
        image_pull_secrets: Names of Secrets for the images' registry.
    """

    RULES: ClassVar = (
        *map(_rule_of_stage, STAGES),
        Rule(
            "!has(self.model.emulated) || has(self.scaling.profile)",
            "model.emulated needs scaling.profile: it says how long stages take",
            ".scaling.profile",
        ),
        Rule(
            "has(self.scaling.scaleToZero) || self.stages.encoder.minReplicas > 0 &&"
            " self.stages.dit.minReplicas > 0 && self.stages.decoder.minReplicas > 0",
            "minReplicas may be 0 only with scaling.scaleToZero",
            ".stages",
        ),
        Rule(
            "self.pools.all(name, !has(self.pools[name].flex) ||"
            f" {' + '.join(map(_may_run, STAGES))} > 1)",
            "flex needs at least two stages that may run on the pool",
            ".pools",
        ),
    )

    model: Model
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    options: Options = Field(default_factory=Options)
    pools: Annotated[dict[PoolName, Pool], Field(min_length=1, max_length=8)]
    stages: Stages = Field(default_factory=Stages)
    scaling: Scaling = Field(default_factory=Scaling)
    transport: Transport = Field(default_factory=Transport)
    gateway: Gateway = Field(default_factory=Gateway)
    deletion: Deletion = Field(default_factory=Deletion)
    image_pull_secrets: Annotated[tuple[ObjectName, ...], Field(max_length=8), SET] = ()

    def pools_of(self, stage: str) -> tuple[str, ...]:
        """Return the pools on which a stage may run."""
        return dict(self.stages.items())[stage].pools or tuple(self.pools)

    def flexes(self, pool: str) -> bool:
        """Tell whether the pods of a pool change their stage in place."""
        return pool in self.pools and self.pools[pool].flex is not None

    def places(self) -> tuple[tuple[str, str], ...]:
        """Return every stage with every pool on which it may run."""
        return tuple(
            (stage, pool) for stage, _ in self.stages.items() for pool in self.pools_of(stage)
        )
