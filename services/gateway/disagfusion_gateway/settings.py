"""The gateway's settings, from the environment."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from disagfusion.errors import InvalidArgumentError
from disagfusion.jobs.store import DAY_SECONDS, RetentionPolicy
from disagfusion.rpc.addresses import check_address
from disagfusion.rpc.tls import TlsSettings


class WorkerAddress(BaseModel):
    """Where one worker is, or several behind a DNS name.

    Attributes:
        name: For people, until the worker has said its own; empty for DNS names.
        address: `host:port` or `unix:/path`.
        dns: Whether the host has an address per worker and is resolved again and again.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    address: str
    dns: bool = False


class GatewaySettings(BaseSettings):
    """Every setting `x` is read from the environment variable `DISAGFUSION_X`.

    Attributes:
        listen: `host:port` or `unix:/path`; others than loopback and unix need `api_keys`.
        open_to_all: Whether other addresses are listened on without `api_keys` as well, where
            something else decides who reaches them.
        internal_listen: The same for balancers; others than loopback and unix need TLS or
            `internal_keys`. Empty for none.
        internal_keys: Key file of those who may call `internal_listen`.
        probe_listen: `host:port` that answers `grpc.health.v1` without TLS; empty for none. Without
            TLS `listen` does it.
        workers: Comma list of `name=address`, or `dns:host:port`.
        pipeline: The name of the pipeline that is served.
        balance_budget: Accelerators in use at most, for those who ask on the internal address;
            0 where it is not known.
        database: SQLAlchemy URL of the job store: SQLite for one gateway,
            `postgresql+psycopg://user:password@host/database` for any number.
        database_synchronous: SQLite's setting: FULL survives a loss of power, NORMAL the death of
            any process.
        lease_seconds: After which a gateway that gives no sign of life loses its jobs to the
            others on its PostgreSQL store, and has to end.
        results: Directory of the encoded results; the same for all gateways on one store.
        waiting_per_slot: Jobs that may wait for a stage, per input slot of that stage, before the
            stage in front of it is held back.
        queue_limit: Accepted jobs that have not begun, of this gateway.
        tenant_limit: Unfinished jobs of one tenant, of all gateways on one store; 0 for no limit.
        disk_reserve_bytes: New jobs are refused when less than this is free for the job store or
            the results, so that there is room to finish those that were accepted.
        api_keys: Key file, see `disagfusion.rpc.auth`.
        tls_cert: With `tls_key` and `tls_ca`: mutual TLS, here and towards the workers.
        tls_server_name: Expected in the workers' certificates instead of their addresses.
        metrics_listen: `host:port` for Prometheus; empty for none.
        ready_file: Written once the gateway listens.
        retention_job_seconds: After its end a job is removed; this and the next four may be
            empty for no bound.
        retention_event_seconds: After its end a job's events are removed, all but the last.
        retention_result_seconds: After its end a job's results are removed.
        retention_result_bytes: Bound on all results; the oldest go first.
        retention_job_bytes: Bound on what jobs take in the store, estimated; oldest first.
        retention_interval_seconds: Between two rounds of removal.
        log_format: "json" for machines, "console" for people.
        log_level: The least severe level that is written.
        spec_wait_seconds: How long a submission waits for the first worker that has loaded.
        max_images: Input images of one request.
        max_image_bytes: Of one encoded input image.
        max_image_pixels: Of one decoded input image.
        max_timeout_seconds: Of one job.
        ping_interval_seconds: Between two pings of a worker.
        ping_deadline_seconds: After which a silent worker is given up.
        reconnect_grace_seconds: In which a worker whose stream broke may come back.
        resolve_interval_seconds: Between two look-ups of a DNS name.
        fetch_concurrency: Results that are fetched at a time.
        shutdown_grace_seconds: For calls that still run at the end.
    """

    model_config = SettingsConfigDict(env_prefix="DISAGFUSION_", extra="ignore")

    listen: str = "127.0.0.1:7420"
    name: str = Field(default_factory=socket.gethostname)
    open_to_all: bool = False
    internal_listen: str = ""
    internal_keys: Path | None = None
    probe_listen: str = ""
    workers: str = ""
    pipeline: str = "default"
    balance_budget: int = Field(default=0, ge=0)
    database: str = "sqlite:///disagfusion-jobs.sqlite3"
    database_synchronous: Literal["FULL", "NORMAL"] = "FULL"
    lease_seconds: float = Field(default=5.0, gt=0)
    results: Path = Path("disagfusion-results")
    waiting_per_slot: int = Field(default=2, ge=1)
    queue_limit: int = Field(default=1000, ge=1)
    tenant_limit: int = Field(default=0, ge=0)
    disk_reserve_bytes: int = Field(default=64 * 2**20, ge=0)
    api_keys: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    tls_server_name: str = ""
    metrics_listen: str = ""
    ready_file: Path | None = None
    retention_job_seconds: float | None = Field(default=7 * DAY_SECONDS, gt=0)
    retention_event_seconds: float | None = Field(default=2 * DAY_SECONDS, gt=0)
    retention_result_seconds: float | None = Field(default=2 * DAY_SECONDS, gt=0)
    retention_result_bytes: int | None = Field(default=10 * 2**30, ge=0)
    retention_job_bytes: int | None = Field(default=2**30, ge=0)
    retention_interval_seconds: float = Field(default=60.0, gt=0)
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    spec_wait_seconds: float = Field(default=5.0, ge=0)
    max_images: int = Field(default=8, ge=0)
    max_image_bytes: int = Field(default=16 * 2**20, ge=1)
    max_image_pixels: int = Field(default=2**26, ge=1)
    max_timeout_seconds: float = Field(default=30 * 86_400, gt=0)
    ping_interval_seconds: float = Field(default=1.0, gt=0)
    ping_deadline_seconds: float = Field(default=5.0, gt=0)
    reconnect_grace_seconds: float = Field(default=1.0, ge=0)
    resolve_interval_seconds: float = Field(default=5.0, gt=0)
    fetch_concurrency: int = Field(default=8, ge=1)
    shutdown_grace_seconds: float = Field(default=2.0, ge=0)

    @field_validator(
        *("api_keys", "internal_keys", "tls_cert", "tls_key", "tls_ca", "ready_file"),
        *("retention_job_seconds", "retention_event_seconds", "retention_result_seconds"),
        *("retention_result_bytes", "retention_job_bytes"),
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def tls(self) -> TlsSettings | None:
        """The three files of mutual TLS, or None.

        Raises:
            InvalidArgumentError: Only some of them are given.
        """
        files = {"tls_cert": self.tls_cert, "tls_key": self.tls_key, "tls_ca": self.tls_ca}
        if not any(files.values()):
            return None
        for field, path in files.items():
            if path is None:
                raise InvalidArgumentError(field, "is missing", expected="all three TLS files")
        assert self.tls_cert
        assert self.tls_key
        assert self.tls_ca
        return TlsSettings(
            cert=self.tls_cert, key=self.tls_key, ca=self.tls_ca, server_name=self.tls_server_name
        )

    @property
    def retention(self) -> RetentionPolicy:
        """What is removed when."""
        return RetentionPolicy(
            job_seconds=self.retention_job_seconds,
            event_seconds=self.retention_event_seconds,
            result_seconds=self.retention_result_seconds,
            result_bytes=self.retention_result_bytes,
            job_bytes=self.retention_job_bytes,
        )

    def worker_addresses(self) -> tuple[WorkerAddress, ...]:
        """Return where the workers are.

        Raises:
            InvalidArgumentError: An entry is neither of the two forms.
        """
        found = []
        for entry in filter(None, (part.strip() for part in self.workers.split(","))):
            dns = entry.startswith("dns:")
            name, separator, address = ("", ":", entry[4:]) if dns else entry.partition("=")
            if not separator or not (name or dns):
                raise InvalidArgumentError(
                    "workers", f"{entry!r} is not usable", expected="name=address or dns:host:port"
                )
            check_address(address, "workers")
            found.append(WorkerAddress(name=name, address=address, dns=dns))
        return tuple(found)
