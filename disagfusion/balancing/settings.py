"""The balancer process's settings, from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from disagfusion.rpc.tls import TlsSettings


class BalancedWorker(BaseModel):
    """A worker that may be started, stopped and given another stage.

    Attributes:
        address: Of its front.
        pool: What kind of accelerator it has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    pool: str


class BalancingSettings(BaseSettings):
    """Every setting `x` is read from the environment variable `DISAGFUSION_X`.

    Attributes:
        fleet_address: The gateway's internal address.
        control: The supervisor's control socket.
        balanced_workers: Every worker by name, as JSON.
        balance_profile: YAML or JSON file: what stages cost, on which accelerators.
        balance_budget: Accelerators in use at most; all of the profile's where it is not given.
        balance: Fields of `disagfusion.scheduling.balancer.settings.BalancerSettings`, as JSON.
        balance_calibration: Whether the balancer tries its own parameters again on recent jobs.
        balance_signals: Where jobs and loads are read: `prometheus:URL`; empty: the gateway is
            asked.
        signals_window: Real seconds over which Prometheus takes rates; a sample that is half as
            old is not acted upon.
        targets_file: Where the processes' metrics are is written here, for Prometheus' `file_sd`.
        time_scale: Real seconds for one second of the profile.
        decision_log: Every decision is written here, one JSON object per line.
        memory_file: What was learned is read from here at the start, and saved here; empty: it is
            learned anew each time.
        hold_file: While there is such a file, nothing changes; see `disagfusion balance pause`.
        pipeline: For metrics and the log.
        patience_seconds: How long the gateway, the supervisor or a worker may take to answer.
        tls_cert: With `tls_key` and `tls_ca`: for the workers' ports.
        metrics_listen: `host:port` for Prometheus; empty for none.
        ready_file: Written once the balancer runs.
    """

    model_config = SettingsConfigDict(env_prefix="DISAGFUSION_", extra="ignore")

    fleet_address: str
    control: str
    balanced_workers: dict[str, BalancedWorker]
    balance_profile: Path
    balance_budget: int | None = Field(default=None, ge=1)
    balance: dict[str, Any] = Field(default_factory=dict)
    balance_calibration: bool = True
    balance_signals: str = ""
    signals_window: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    targets_file: Path | None = None
    time_scale: float = Field(default=1.0, gt=0, le=1000, allow_inf_nan=False)
    decision_log: Path
    memory_file: Path | None = None
    hold_file: Path | None = None
    pipeline: str = "default"
    patience_seconds: float = Field(default=2.0, gt=0)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    tls_server_name: str = ""
    metrics_listen: str = "127.0.0.1:0"
    ready_file: Path | None = None
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator(
        *("tls_cert", "tls_key", "tls_ca", "ready_file", "balance_budget", "targets_file"),
        *("memory_file", "hold_file"),
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def tls(self) -> TlsSettings | None:
        """The three files of mutual TLS, or None."""
        if self.tls_cert is None or self.tls_key is None or self.tls_ca is None:
            return None
        return TlsSettings(
            cert=self.tls_cert, key=self.tls_key, ca=self.tls_ca, server_name=self.tls_server_name
        )
