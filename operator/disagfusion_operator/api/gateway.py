"""The front door: where jobs come in, and where they and their results are kept."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from disagfusion_operator.api.base import (
    Image,
    ObjectName,
    Part,
    Quantity,
    Rule,
    SecretKey,
    volume_rules,
)
from disagfusion_operator.api.pods import PodTemplate, Resources


class Sqlite(Part):
    """A SQLite database on a volume: one gateway owns it.

    Attributes:
        storage: Size of the volume. Once 0.85 of it are filled, jobs that ended long ago go.
        storage_class_name: Of the volume; the cluster's default where not given.
    """

    RULES: ClassVar = volume_rules("jobs")

    storage: Quantity = "1Gi"
    storage_class_name: ObjectName | None = None


class Postgresql(Part):
    """A PostgreSQL database, which several gateways share.

    Its results need a storage class with ReadWriteMany, with one gateway as well.

    Attributes:
        url_secret: Its URL, `postgresql://user:password@host:port/database`.
    """

    url_secret: SecretKey


class JobStore(Part):
    """Where jobs are kept: exactly one kind.

    Attributes:
        sqlite: On a volume.
        postgresql: In a database server.
    """

    RULES: ClassVar = (
        Rule(
            "has(self.sqlite) != has(self.postgresql)",
            "expected exactly one of sqlite and postgresql",
        ),
        Rule(
            "has(self.sqlite) == has(oldSelf.sqlite)",
            "the kind of store cannot change: the jobs in it would be lost; make another pipeline",
        ),
    )

    sqlite: Sqlite | None = None
    postgresql: Postgresql | None = None


class Results(Part):
    """Where pictures and videos are kept until they are fetched.

    Attributes:
        storage: Size of the volume. Once 0.85 of it are filled, the oldest results go.
        storage_class_name: Of the volume; the cluster's default where not given.
        reclaim_policy: Retain keeps jobs and results when the pipeline is deleted.
        retention_seconds: After its end a job's results are removed.
    """

    RULES: ClassVar = volume_rules("results")

    storage: Quantity = "10Gi"
    storage_class_name: ObjectName | None = None
    reclaim_policy: Literal["Retain", "Delete"] = "Delete"
    retention_seconds: Annotated[int, Field(ge=60)] = 172_800


class Authentication(Part):
    """Who may submit jobs.

    Attributes:
        api_keys_secret: File of hashed keys, as `disagfusion keys` writes it.
    """

    api_keys_secret: SecretKey


class Gateway(Part):
    """The gateways of a pipeline.

    Attributes:
        replicas: How many; more than one share a PostgreSQL store.
        image: Of their pods; the release's own where not given.
        store: Where jobs are kept.
        results: Where results are kept.
        authentication: Who may submit; everyone who reaches the Service where not given.
        queue_limit: Accepted jobs that have not begun; more are refused.
        resources: Of each pod's container.
        pod_template: Laid over the pods.
    """

    RULES: ClassVar = (
        Rule(
            "self.replicas == 1 || has(self.store.postgresql)",
            "more than one replica needs store.postgresql: SQLite belongs to one gateway",
            ".replicas",
        ),
    )

    replicas: Annotated[int, Field(ge=1, le=16)] = 1
    image: Image | None = None
    store: JobStore = Field(default_factory=lambda: JobStore(sqlite=Sqlite()))
    results: Results = Field(default_factory=Results)
    authentication: Authentication | None = None
    queue_limit: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    resources: Resources = Field(default_factory=Resources)
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
